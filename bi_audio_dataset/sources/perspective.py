"""A folder of perspective videos with ears already: binaural, stereo or mono sound, straight to pairs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bi_audio_dataset import media
from bi_audio_dataset.schema import UserError
from bi_audio_dataset.sources import checks
from bi_audio_dataset.sources.base import Recording, check_ears
from bi_audio_dataset.splits import DEFAULT_FRACTIONS, split_of
from bi_audio_dataset.unusable import Unusable

SOUNDS = ("binaural", "stereo", "mono")


@dataclass(frozen=True)
class PerspectiveSource:
    """Ordinary videos of one folder (not its subfolders), each with two channels of sound in the file or in a
    sound file of the same name beside it. A recording's id is its file's name.

    sound: "binaural" (recorded or rendered at two ears), "stereo" (microphones or a mix) or "mono" (the mean
    of one channel or two is both ears); the rows say which, since level and time differences of stereo are
    not those of a head, and mono has none. hfov_deg: the lens, if known.
    """

    folder: Path
    sound: str = "binaural"
    hfov_deg: float | None = None
    licence: str = "unknown"
    provenance: str = ""
    fractions: tuple[float, float, float] = DEFAULT_FRACTIONS
    name: str = "perspective"

    def __post_init__(self) -> None:
        if self.sound not in SOUNDS:
            raise UserError(f"sound is '{self.sound}', expected one of {', '.join(SOUNDS)}")
        check_hfov(self.hfov_deg)

    @property
    def settings(self) -> dict[str, object]:
        return {
            "sound": self.sound,
            "hfov_deg": self.hfov_deg,
            "licence": self.licence,
            "provenance": self.provenance,
            "fractions": list(self.fractions),
        }

    def recording_ids(self) -> list[str]:
        return checks.video_ids(self.folder)

    def split(self, recording_id: str) -> str:
        return split_of(recording_id, self.fractions)

    def fetch(self, recording_id: str, workdir: Path) -> Recording:
        """Point to the files, checked by `pair`."""
        video = checks.one_video(self.folder, recording_id)
        audio = pair(video, mono=self.sound == "mono")
        return Recording(
            recording_id,
            video,
            audio,
            self.licence,
            checks.provenance_of(video, self.provenance),
            kind="pair",
            ears=f"recorded: {self.sound}",
            hfov_deg=self.hfov_deg,
        )


def pair(video: Path, audio: Path | None = None, mono: bool = False) -> Path:
    """The sound of a pair; by default the file beside the video, or the video itself.

    Unusable unless the files are a film of one eye, no panorama, and two channels (mono: one or two);
    UserError for files that cannot be read.
    """
    picture = media.probe(video)
    if picture.projection not in ("", "rectilinear"):
        why = f"'{video.name}' is a 360-degree video ({picture.projection}): use the source 'folder'"
        raise Unusable({"projection": why})
    if picture.stereo not in ("", "mono"):
        why = f"'{video.name}' holds two eyes ({picture.stereo}): crop it to the left one"
        raise Unusable({"stereo_360": why})
    audio = checks.sound_of(video, picture) if audio is None else audio
    sound = checks.check_sound(audio)
    check_ears(sound.channels, f"'{audio.name}'", mono)
    return audio


def check_hfov(hfov_deg: float | None) -> None:
    """UserError unless None or a lens that a row may state."""
    if hfov_deg is not None and not 10 <= hfov_deg <= 170:
        raise UserError(f"horizontal field of view is {hfov_deg:g} degrees, expected 10 to 170")
