"""A folder of 360-degree videos: NAME.mp4 with ambisonic sound in it, or NAME.flac / NAME.wav beside."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bi_audio_dataset.channels import AMBIX, ChannelOrder, order_of
from bi_audio_dataset.sources import checks
from bi_audio_dataset.sources.base import Recording
from bi_audio_dataset.splits import DEFAULT_FRACTIONS, split_of


@dataclass(frozen=True)
class FolderSource:
    """Equirectangular videos of one folder (not its subfolders). A recording's id is its file's name, so it
    keeps its split when others are added. Files are read where they lie.

    channels: "stated" takes the ambisonic order from each file's metadata (checks.channel_order) and refuses
    files that state none; "ambix", "fuma" or another name of channels.ORDERS is the user's word for those.
    trust_picture: take pictures of the right size that look flat or stereo (picture.projection).
    Taken on trust, as no file proves it: that the picture's centre is the sound's azimuth 0.
    """

    folder: Path
    licence: str = "unknown"
    provenance: str = ""
    fractions: tuple[float, float, float] = DEFAULT_FRACTIONS
    name: str = "folder"
    channels: str = "stated"
    trust_picture: bool = False

    def __post_init__(self) -> None:
        if self.channels != "stated":
            order_of(self.channels)

    @property
    def settings(self) -> dict[str, object]:
        return {
            "licence": self.licence,
            "provenance": self.provenance,
            "fractions": list(self.fractions),
            "channels": self.channels,
            "trust_picture": self.trust_picture,
        }

    def recording_ids(self) -> list[str]:
        return checks.video_ids(self.folder)

    def split(self, recording_id: str) -> str:
        return split_of(recording_id, self.fractions)

    def fetch(self, recording_id: str, workdir: Path) -> Recording:
        """Point to the files, checked by `panorama`."""
        video = checks.one_video(self.folder, recording_id)
        provenance = checks.provenance_of(video, self.provenance)
        audio, order = panorama(video, self.channels)
        return Recording(
            recording_id,
            video,
            audio,
            self.licence,
            provenance,
            channels=order,
            trust_picture=self.trust_picture,
        )


def panorama(video: Path, channels: str) -> tuple[Path, ChannelOrder]:
    """(sound file, its ambisonic order) of a 360-degree video; the sound may be the video itself.

    Unusable if the picture is stated not to be one eye's equirectangular, if there is no sound, or if its
    rate, number of channels or order will not do; UserError for files that cannot be read.
    """
    picture = checks.check_panorama(video)
    audio = checks.sound_of(video, picture)
    sound = checks.check_sound(audio)
    name = f"'{audio.name}'"
    if sound.channels < 4:  # then the number is what is wrong, whatever the order
        AMBIX.check_count(sound.channels, name)
    order = checks.channel_order(video, audio, channels)
    order.check_count(sound.channels, name)
    return audio, order
