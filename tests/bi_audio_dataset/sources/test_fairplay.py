"""FAIR-Play as its authors publish it: HDF5 lists of paths on their own disk, films and binaural files."""

import pickle
import struct

import netCDF4
import numpy as np
import pytest
from foa_films import signals, write_film

from bi_audio_dataset import media
from bi_audio_dataset.schema import UserError
from bi_audio_dataset.sources.base import Source, read_sound
from bi_audio_dataset.sources.fairplay import FairPlaySource

RATE = 48000
SPLIT = {"train": ["000001", "000002", "000005"], "val": ["000003"], "test": ["000004"]}
NOWHERE = (1 << 64) - 1


def write_h5(path, names):
    """What h5py of 2019 writes of an array of byte strings: of fixed length, contiguous, format version 0."""
    data = np.array([name.encode() for name in names])
    at = {"root": 96, "tree": 136, "heap": 680, "words": 712, "node": 728, "audio": 1056, "data": 1184}
    end = at["data"] + data.nbytes

    def header(*messages):
        body = b"".join(struct.pack("<HHB3x", kind, len(m), 0) + m for kind, m in messages)
        return struct.pack("<BxHII4x", 1, len(messages), 1, len(body)) + body

    table = struct.pack("<QQ", at["tree"], at["heap"])
    parts = {
        0: b"\x89HDF\r\n\x1a\n"
        + bytes([0, 0, 0, 0, 0, 8, 8, 0])
        + struct.pack("<HHI", 4, 16, 0)
        + struct.pack("<4Q", 0, NOWHERE, end, NOWHERE)
        + struct.pack("<QQII", 0, at["root"], 1, 0)
        + table,
        at["root"]: header((0x11, table)),
        at["tree"]: b"TREE" + struct.pack("<BBHQQQQQ", 0, 0, 1, NOWHERE, NOWHERE, 0, at["node"], 8),
        at["heap"]: b"HEAP" + struct.pack("<B3xQQQ", 0, 16, 1, at["words"]),
        at["words"]: bytes(8) + b"audio\0\0\0",
        at["node"]: b"SNOD" + struct.pack("<BxHQQII16x", 1, 1, 8, at["audio"], 0, 0),
        at["audio"]: header(
            (0x01, struct.pack("<BBB5xQ", 1, 1, 0, len(data))),
            (0x03, struct.pack("<B3BI", 0x13, 1, 0, 0, data.itemsize)),
            (0x05, struct.pack("<BBBB4x", 2, 2, 2, 0)),
            (0x08, struct.pack("<BBQQ6x", 3, 1, at["data"], data.nbytes)),
        ),
        at["data"]: data.tobytes(),
    }
    whole = bytearray(end)
    for offset, part in parts.items():
        whole[offset : offset + len(part)] = part
    path.write_bytes(bytes(whole))


def write_strings(path, names):
    """The same list as strings of any length, which newer h5py writes."""
    with netCDF4.Dataset(str(path), "w") as file:
        file.createDimension("n", len(names))
        variable = file.createVariable("audio", str, ("n",))
        for index, name in enumerate(names):
            variable[index] = name


def write_splits(folder, number=1, write=write_h5):
    place = folder / f"splits/split{number}"
    place.mkdir(parents=True)
    for name, clips in SPLIT.items():
        write(place / f"{name}.h5", [f"/data/someone/binaural16k/{clip}.wav" for clip in clips])


@pytest.fixture
def folder(tmp_path):
    write_splits(tmp_path)
    (tmp_path / "videos").mkdir()
    (tmp_path / "binaural_audios").mkdir()
    for clip in ("000001", "000003", "000004"):
        write_film(tmp_path / f"videos/{clip}.mp4", seconds=0.6, picture=np.full((48, 64, 3), 90, np.uint8))
        media.write_audio(tmp_path / f"binaural_audios/{clip}.wav", signals(2, 0.6, RATE, int(clip)), RATE)
    return tmp_path


def test_splits_and_pairs(folder):
    source = FairPlaySource(folder)
    assert isinstance(source, Source)
    assert source.recording_ids() == ["000001", "000003", "000004"]
    assert [source.split(i) for i in source.recording_ids()] == ["train", "validation", "test"]
    assert source.missing() == ["000002", "000005"]
    recording = pickle.loads(pickle.dumps(source)).fetch("000003", folder)
    assert (recording.kind, recording.licence, recording.ears) == (
        "pair",
        "CC-BY-4.0",
        "recorded: 3Dio Free Space XLR",
    )
    ears = read_sound(recording, RATE)
    np.testing.assert_allclose(ears, signals(2, 0.6, RATE, 3), atol=2**-15)


@pytest.mark.parametrize("write", [write_h5, write_strings])
def test_both_forms_of_hdf5(tmp_path, write):
    write_splits(tmp_path, 7, write)
    table = FairPlaySource(tmp_path, 7)._table()
    assert table == {c: {"val": "validation"}.get(s, s) for s, clips in SPLIT.items() for c in clips}


def test_text_lists_of_other_authors(folder):
    place = folder / "other/split1"
    place.mkdir(parents=True)
    for name, clips in {"train": ["000004"], "val": ["000003"], "test": ["000001"]}.items():
        (place / f"{name}.txt").write_text("\n".join(f"{clip}.mp3" for clip in clips))
    source = FairPlaySource(folder, splits=folder / "other")
    assert [source.split(i) for i in source.recording_ids()] == ["test", "validation", "train"]


def test_a_clip_in_two_splits_is_refused(folder):
    write_h5(folder / "splits/split1/test.h5", ["/x/000001.wav"])
    with pytest.raises(UserError, match="clip '000001' is in train too"):
        FairPlaySource(folder).recording_ids()


def test_wrong_files(folder):
    with pytest.raises(UserError, match="splits are 1 to 10, got 11"):
        FairPlaySource(folder, 11)
    with pytest.raises(UserError, match="holds no train.h5"):
        FairPlaySource(folder, 2).recording_ids()
    (folder / "splits/split1/val.h5").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:1e47\n"
    )
    with pytest.raises(UserError, match="git lfs pull"):
        FairPlaySource(folder).recording_ids()
    (folder / "splits/split1/val.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(200))
    with pytest.raises(UserError, match="cannot be read as a split"):
        FairPlaySource(folder).recording_ids()


def test_a_clip_without_its_sound(folder):
    (folder / "binaural_audios/000001.wav").unlink()
    with pytest.raises(UserError, match="holds no 000001.wav"):
        FairPlaySource(folder).fetch("000001", folder)
    media.write_audio(folder / "binaural_audios/000001.wav", signals(1, 0.6, RATE), RATE)
    with pytest.raises(UserError, match="'000001.wav' has 1 audio channels .mono holds no direction."):
        FairPlaySource(folder).fetch("000001", folder)
