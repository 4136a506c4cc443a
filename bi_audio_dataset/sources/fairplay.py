"""FAIR-Play (Gao and Grauman 2019, "2.5D Visual Sound"; github.com/facebookresearch/FAIR-Play, CC BY 4.0).

1,871 clips of 10 s: people playing in a music room, filmed beside a 3Dio binaural microphone. Pairs already.

    videos/000001.mp4
    binaural_audios/000001.wav
    splits/split1/train.h5, val.h5, test.h5     (ten random splits, split1 to split10)

Each .h5 holds one array of strings, `audio`: paths on the authors' own disk (".../binaural16k/000001.wav"),
of which only the file's name means anything. The scenes of training and test overlap in all ten;
PseudoBinaural (Xu et al. 2021) published stricter splits as train.txt, val.txt and test.txt: read too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from bi_audio_dataset.schema import UserError
from bi_audio_dataset.sources import checks
from bi_audio_dataset.sources.base import Recording
from bi_audio_dataset.sources.perspective import check_hfov, pair

NUM_SPLITS = 10
#: Name of the split's file -> the split's name here.
FILES = {"train": "train", "val": "validation", "test": "test"}
EARS = "recorded: 3Dio Free Space XLR"


@dataclass(frozen=True)
class FairPlaySource:
    """FAIR-Play as its authors publish it, under one of its ten splits.

    splits: folder of split1 ... split10, default `folder`/splits. hfov_deg: its authors state no lens.
    """

    folder: Path
    number: int = 1
    splits: Path | None = None
    hfov_deg: float | None = None
    name: str = "FAIR-Play"

    def __post_init__(self) -> None:
        if not 1 <= self.number <= NUM_SPLITS:
            raise UserError(f"FAIR-Play's splits are 1 to {NUM_SPLITS}, got {self.number}")
        check_hfov(self.hfov_deg)

    @property
    def settings(self) -> dict[str, object]:
        return {"split": self.number, "hfov_deg": self.hfov_deg}

    def recording_ids(self) -> list[str]:
        """Every clip of the split that has a video here, by number."""
        there = checks.videos_in(Path(self.folder) / "videos")
        ids = sorted(set(self._table()) & set(there))
        if not ids:
            raise UserError(f"'{self.folder}/videos' holds none of the clips of split {self.number}")
        return ids

    def missing(self) -> list[str]:
        """Clips of the split that have no video here."""
        return sorted(set(self._table()) - set(self.recording_ids()))

    def split(self, recording_id: str) -> str:
        try:
            return self._table()[recording_id]
        except KeyError:
            raise UserError(f"clip '{recording_id}' is not in FAIR-Play's split {self.number}") from None

    def fetch(self, recording_id: str, workdir: Path) -> Recording:
        video = checks.one_video(Path(self.folder) / "videos", recording_id)
        audio = checks.sound_beside(video, Path(self.folder) / "binaural_audios")
        if audio is None:
            raise UserError(f"'{self.folder}/binaural_audios' holds no {recording_id}.wav")
        pair(video, audio)
        return Recording(
            recording_id,
            video,
            audio,
            "CC-BY-4.0",
            f"FAIR-Play (Gao and Grauman 2019), clip {recording_id}",
            room="music room",
            kind="pair",
            ears=EARS,
            hfov_deg=self.hfov_deg,
        )

    def _table(self) -> dict[str, str]:
        folder = Path(self.splits or Path(self.folder) / "splits") / f"split{self.number}"
        files = []
        for name in FILES:
            found = [path for suffix in (".h5", ".txt") if (path := folder / (name + suffix)).is_file()]
            if not found:
                raise UserError(f"'{folder}' holds no {name}.h5: expected FAIR-Play's splits there")
            files.append((FILES[name], found[0], found[0].stat().st_mtime_ns))
        return _read_table(tuple(files))


@lru_cache(maxsize=16)
def _read_table(files: tuple[tuple[str, Path, int], ...]) -> dict[str, str]:
    """Clip -> split. UserError if a clip is in two."""
    table: dict[str, str] = {}
    for split, path, _ in files:
        for name in _names(path):
            # written on Linux, maybe rewritten on Windows; PseudoBinaural's lists say .mp3
            clip = PurePosixPath(name.replace("\\", "/")).stem
            if table.setdefault(clip, split) != split:
                raise UserError(f"{path}: clip '{clip}' is in {table[clip]} too; a clip must be in one split")
    return table


def _names(path: Path) -> list[str]:
    try:
        if path.suffix == ".txt":
            names = path.read_text(encoding="utf-8").split()
        elif path.read_bytes()[:7] == b"version":
            raise UserError(f"{path}: is a pointer of Git LFS, not the file; run 'git lfs pull' in the clone")
        else:
            names = _strings(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a split ({error})") from error
    if not names:
        raise UserError(f"{path}: names no clip")
    return names


def _strings(path: Path) -> list[str]:
    """The array `audio` of an HDF5 file. netCDF4 reads HDF5, and comes with sofar for the HRIR sets."""
    import netCDF4

    with netCDF4.Dataset(str(path)) as file:
        if "audio" not in file.variables:
            raise UserError(
                f"{path}: holds {', '.join(file.variables) or 'nothing'}, expected an array 'audio'"
            )
        return [str(name) for name in file.variables["audio"][:]]
