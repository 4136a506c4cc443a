"""Sphere360's lists decide what is taken: ids, seconds, splits. Files lie as its crawler leaves them."""

import json
import pickle

import numpy as np
import pytest
from foa_films import insert_box, sa3d, signals, write_film

from bi_audio_dataset import manifest, media
from bi_audio_dataset.__main__ import main
from bi_audio_dataset.channels import AMBIX, FUMA
from bi_audio_dataset.schema import UserError
from bi_audio_dataset.sources.base import Source, read_sound
from bi_audio_dataset.sources.sphere360 import Sphere360Source

RATE = 16000
# an id of YouTube's may begin with a dash, and may itself look like a segment
TRAIN = ["-076WPWoCRE_0", "-076WPWoCRE_11", "TKPZf_P5_18_2", "gone0000000_30", "both0000000_5"]
TEST = ["_yNwzbv3PeI_1", "both0000000_40"]


def write_lists(folder, train=TRAIN, test=TEST, **others):
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in {"train": train, "test": test, **others}.items():
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")


def write_video(folder, name, seconds=22.0, beside=False):
    sound = signals(4, seconds, RATE, len(name))
    if not beside:
        return write_film(folder / f"{name}.mkv", sound, RATE, "pcm_s16le", "quad")
    media.write_audio(folder / f"{name}.flac", sound, RATE)
    return write_film(folder / f"{name}.mp4", seconds=seconds)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sphere360")
    write_lists(folder / "dataset/split")
    write_video(folder, "-076WPWoCRE", 16.0)
    write_video(folder, "TKPZf_P5_18", 12.0, beside=True)
    write_video(folder, "_yNwzbv3PeI_1", 10.0)  # a segment as the crawler cuts it
    write_video(folder, "unlisted000", 10.0)
    return folder


def test_which_recordings(corpus):
    source = Sphere360Source(corpus)
    assert isinstance(source, Source)
    assert source.recording_ids() == ["-076WPWoCRE", "TKPZf_P5_18", "_yNwzbv3PeI_1"]
    assert source.missing() == ["both0000000", "gone0000000"]
    assert source.split("_yNwzbv3PeI_1") == "test"
    assert "folder" not in source.settings


def test_whole_video_has_a_stretch_per_listed_second(corpus):
    recording = pickle.loads(pickle.dumps(Sphere360Source(corpus))).fetch("-076WPWoCRE", corpus)
    # 16 s hold the segment at 0 s; that at 11 s would end at 21 s
    assert recording.stretches == ((0.0, 10.0),)
    assert (recording.kind, recording.channels, recording.group) == ("panorama", AMBIX, "-076WPWoCRE")
    assert recording.provenance.endswith("watch?v=-076WPWoCRE")
    expected = np.round(signals(4, 16.0, RATE, 11) * 2**15) / 2**15
    np.testing.assert_array_equal(read_sound(recording, RATE, 0.0, 10.0), expected[:, : 10 * RATE])


def test_an_id_that_looks_like_a_segment(corpus):
    recording = Sphere360Source(corpus).fetch("TKPZf_P5_18", corpus)
    assert recording.stretches == ((2.0, 12.0),)
    assert recording.audio_path.name == "TKPZf_P5_18.flac"


def test_a_cut_segment_is_used_whole(corpus):
    recording = Sphere360Source(corpus).fetch("_yNwzbv3PeI_1", corpus)
    assert recording.stretches == ()
    assert recording.group == "_yNwzbv3PeI"


def test_segments_are_left_out_where_the_whole_video_is(tmp_path):
    write_lists(tmp_path)
    for name in ("-076WPWoCRE", "-076WPWoCRE_11"):
        (tmp_path / f"{name}.webm").write_bytes(b"x")
    assert Sphere360Source(tmp_path).recording_ids() == ["-076WPWoCRE"]


def test_an_id_of_two_lists_is_held_out(tmp_path):
    write_lists(tmp_path)
    for number in (5, 40):
        (tmp_path / f"both0000000_{number}.webm").write_bytes(b"x")
    source = Sphere360Source(tmp_path)
    assert [source.split(i) for i in source.recording_ids()] == ["test", "test"]


def test_validation_is_taken_from_training_by_id(tmp_path):
    ids = [f"id{i:09d}" for i in range(400)]
    write_lists(tmp_path, [f"{i}_{second}" for i in ids for second in (0, 10)])
    source = Sphere360Source(tmp_path, validation_share=0.25)
    splits = [source.split(i) for i in ids]
    assert 70 < splits.count("validation") < 130
    assert splits == [source.split(f"{i}_10") for i in ids]
    assert "test" not in splits
    write_lists(tmp_path, val=["id000000000_50"])
    write_lists(tmp_path, [f"{i}_0" for i in ids], val=["id000000000_50"])
    listed = Sphere360Source(tmp_path, validation_share=0.25)
    assert [i for i in ids if listed.split(i) == "validation"] == ["id000000000"]


def test_licence_of_the_video(corpus, tmp_path):
    info = corpus / "-076WPWoCRE.info.json"
    info.write_text(json.dumps({"license": "Creative Commons Attribution license (reuse allowed)"}))
    source = Sphere360Source(corpus, licence="LicenseRef-YouTube")
    try:
        assert source.fetch("-076WPWoCRE", tmp_path).licence == "CC-BY-4.0"
    finally:
        info.unlink()
    assert source.fetch("TKPZf_P5_18", tmp_path).licence == "LicenseRef-YouTube"


def test_metadata_that_speak_against_ambix(tmp_path):
    write_lists(tmp_path, ["aaaaaaaaaaa_0"])
    write_video(tmp_path, "aaaaaaaaaaa", 10.0, beside=True)
    (tmp_path / "aaaaaaaaaaa.json").write_text('{"channels": "fuma"}')
    with pytest.raises(UserError, match="WXYZ MaxN by its aaaaaaaaaaa.json, but ambix"):
        Sphere360Source(tmp_path).fetch("aaaaaaaaaaa", tmp_path)
    assert Sphere360Source(tmp_path, channels="stated").fetch("aaaaaaaaaaa", tmp_path).channels == FUMA


def test_a_video_shorter_than_its_list(tmp_path):
    write_lists(tmp_path, ["aaaaaaaaaaa_60"])
    write_video(tmp_path, "aaaaaaaaaaa", 2.0)
    with pytest.raises(UserError, match="before its first listed segment is over .from 60 s."):
        Sphere360Source(tmp_path).fetch("aaaaaaaaaaa", tmp_path)


def test_lists_that_are_wrong_or_missing(tmp_path):
    with pytest.raises(UserError, match="no split list"):
        Sphere360Source(tmp_path).recording_ids()
    write_lists(tmp_path, ["aaaaaaaaaaa_0", "no second"])
    with pytest.raises(UserError, match=r"train.txt, line 2: 'no second' is not <id>_<second>"):
        Sphere360Source(tmp_path).recording_ids()
    write_lists(tmp_path)
    with pytest.raises(UserError, match="holds no video that its lists name .5 ids."):
        Sphere360Source(tmp_path).recording_ids()


def test_sa3d_in_the_file_is_believed(tmp_path):
    write_lists(tmp_path, ["aaaaaaaaaaa_0"])
    path = write_film(tmp_path / "aaaaaaaaaaa.mp4", signals(4, 10.0, 48000), 48000, "aac")
    insert_box(path, b"mp4a", sa3d((0, 2, 3, 1)))
    recording = Sphere360Source(tmp_path, channels="stated").fetch("aaaaaaaaaaa", tmp_path)
    assert recording.channels.places == (0, 2, 3, 1)


@pytest.mark.slow
def test_only_listed_windows_become_clips_with_the_lists_split(tmp_path):
    """<id>_<n> is the 10 s from second n on, as the corpus's own downloader cuts it; no more is used."""
    films = tmp_path / "films"
    write_lists(films, ["aaaaaaaaaaa_0", "aaaaaaaaaaa_12", "bbbbbbbbbbb_3"], ["ccccccccccc_4"])
    write_video(films, "aaaaaaaaaaa", 33.0)  # from second 22 on nothing is listed
    write_video(films, "bbbbbbbbbbb_3", 10.0)  # the segment alone
    write_video(films, "ccccccccccc", 15.0, beside=True)
    command = ["build", str(films), "--source", "sphere360", "--output", str(tmp_path / "set")]
    command += ["--clip-s", "10", "--size", "32x16", "--off", "static", "--off", "duplicate"]
    assert main(command) == 0
    rows = [row for row in manifest.read(tmp_path / "set/manifest.jsonl") if row["kind"] == "clip"]
    split = Sphere360Source(films).split  # training ids, of which some validate
    assert {(row["id"], row["start_s"], row["split"]) for row in rows} == {
        ("aaaaaaaaaaa-0000", 0.0, split("aaaaaaaaaaa")),
        ("aaaaaaaaaaa-0001", 12.0, split("aaaaaaaaaaa")),
        ("bbbbbbbbbbb_3", 0.0, split("bbbbbbbbbbb_3")),
        ("ccccccccccc", 4.0, "test"),
    }
    assert "test" not in (split("aaaaaaaaaaa"), split("bbbbbbbbbbb_3"))
    assert all(row["decision"] == "accept" for row in rows)
