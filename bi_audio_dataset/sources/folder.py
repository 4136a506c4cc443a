"""A folder of 360-degree videos: NAME.mp4 with AmbiX sound in it, or NAME.flac / NAME.wav beside."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bi_audio_dataset import media
from bi_audio_dataset.schema import UserError
from bi_audio_dataset.sources.base import Recording
from bi_audio_dataset.splits import DEFAULT_FRACTIONS, split_of

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov")
AUDIO_SUFFIXES = (".flac", ".wav")


@dataclass(frozen=True)
class FolderSource:
    """Equirectangular videos of one folder (not its subfolders). A recording's id is its file's name, so it
    keeps its split when others are added. Files are read where they lie.

    Taken on trust, as no file proves it: four channels are AmbiX, and the picture's centre is azimuth 0.
    """

    folder: Path
    licence: str = "unknown"
    provenance: str = ""
    fractions: tuple[float, float, float] = DEFAULT_FRACTIONS
    name: str = "folder"

    @property
    def settings(self) -> dict[str, object]:
        return {"licence": self.licence, "provenance": self.provenance, "fractions": list(self.fractions)}

    def recording_ids(self) -> list[str]:
        ids = sorted(path.stem for path in self._videos())
        if not ids:
            raise UserError(f"'{self.folder}' holds no video ({', '.join(VIDEO_SUFFIXES)})")
        return ids

    def split(self, recording_id: str) -> str:
        return split_of(recording_id, self.fractions)

    def fetch(self, recording_id: str, workdir: Path) -> Recording:
        """Point to the files. UserError if the picture is not 2:1 or four audio channels are nowhere."""
        video = next((path for path in self._videos() if path.stem == recording_id), None)
        if video is None:
            raise UserError(f"'{self.folder}' holds no video named '{recording_id}'")
        info = media.probe(video)
        if abs(info.width / info.height - 2) > 0.05:
            raise UserError(
                f"'{video.name}' is {info.width}x{info.height}, "
                "expected an equirectangular picture twice as wide as high"
            )
        beside = (video.with_suffix(suffix) for suffix in AUDIO_SUFFIXES)
        audio = next((path for path in beside if path.is_file()), video)
        if audio == video and not info.audio_channels:
            wanted = " or ".join(video.stem + suffix for suffix in AUDIO_SUFFIXES)
            raise UserError(f"'{video.name}' has no sound, and no {wanted} lies beside it")
        provenance = f"{self.provenance}: {video.name}" if self.provenance else video.name
        return Recording(recording_id, video, audio, self.licence, provenance)

    def _videos(self) -> list[Path]:
        if not Path(self.folder).is_dir():
            raise UserError(f"'{self.folder}' is not a folder")
        return sorted(
            p for p in Path(self.folder).iterdir() if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file()
        )
