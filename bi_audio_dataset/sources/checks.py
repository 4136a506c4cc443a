"""What every source asks of a file before it calls it a recording. Each refusal is one line with a reason."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from bi_audio_dataset import media
from bi_audio_dataset.channels import ChannelOrder, order_of, read_sidecar
from bi_audio_dataset.media import AudioInfo, MediaInfo
from bi_audio_dataset.schema import UserError

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov")
AUDIO_SUFFIXES = (".flac", ".wav", ".amb", ".ogg", ".opus", ".m4a", ".caf")
#: Below this a sound holds little of what tells the ears apart; above, no recorder goes.
RATES_HZ = (16_000, 192_000)
#: Picture and sound may end this far apart: coders pad and drop blocks.
LENGTH_TOLERANCE_S = 1.0
#: An equirectangular picture is twice as wide as high, to within rounding to whole macroblocks.
ASPECT_TOLERANCE = 0.05
# two halves of a picture that are this alike show two eyes; a flat picture's edges differ like far columns
_SAME_EYES = 0.95
_TORN_SEAM = 0.5
_BEYOND_LARGEST = 1.2
_LEAST_CONTRAST = 8.0


def videos_in(folder: Path) -> dict[str, list[Path]]:
    """What a folder (not its subfolders) holds under a video's name, by its id (`id_of`). UserError if it is
    no folder.

    Links that lead nowhere and folders named like videos are there too: `fetch` says what is wrong with them.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"'{folder}' is not a folder")
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith("."):
            found.setdefault(id_of(path), []).append(path)
    return found


def id_of(path: Path) -> str:
    """The stem; one that is no text, or not of one line, with escapes for what it cannot be written with."""
    raw = os.fsencode(path.stem)
    text = raw.decode("utf-8", "backslashreplace")
    if all(sign.isprintable() for sign in text):
        return text
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def video_ids(folder: Path) -> list[str]:
    """The stems of a folder's videos, sorted. UserError if there is none."""
    ids = sorted(videos_in(folder))
    if not ids:
        raise UserError(f"'{folder}' holds no video ({', '.join(VIDEO_SUFFIXES)})")
    return ids


def provenance_of(video: Path, stated: str) -> str:
    """What a row says of its origin: the file's name, after what the user stated."""
    return f"{stated}: {video.name}" if stated else video.name


def one_video(folder: Path, stem: str) -> Path:
    """The only video of that stem. UserError if there is none, or several."""
    found = [path for suffix in VIDEO_SUFFIXES for path in _with_suffix(folder, stem, suffix)]
    if len(found) == 1:
        return found[0]
    if not found and any(id_of(path) != path.stem for path in videos_in(folder).get(stem, [])):
        raise UserError(
            f"'{stem}' stands for a file whose name holds control signs or is no UTF-8 text: rename the file"
        )
    if not found:
        raise UserError(f"'{folder}' holds no video named '{stem}'")
    names = ", ".join(path.name for path in found)
    raise UserError(f"'{folder}' holds several videos named '{stem}' ({names}): keep one")


def sound_beside(video: Path, folder: Path | None = None) -> Path | None:
    """A sound file of the video's stem in `folder` (default: beside it), None if there is none."""
    folder = video.parent if folder is None else folder
    found = [path for suffix in AUDIO_SUFFIXES for path in _with_suffix(folder, video.stem, suffix)]
    return found[0] if found else None


def sound_of(video: Path, picture: MediaInfo) -> Path:
    """The sound file beside the video, else the video itself. UserError if neither has sound."""
    audio = sound_beside(video)
    if audio is None and not picture.audio_channels:
        wanted = ", ".join(video.stem + suffix for suffix in AUDIO_SUFFIXES[:2])
        raise UserError(
            f"'{video.name}' has no sound that can be decoded, and none lies beside it ({wanted}, ...)"
        )
    return audio or video


def _with_suffix(folder: Path, stem: str, suffix: str) -> list[Path]:
    # not Path.with_suffix: a stem may itself hold a dot
    names = {stem + suffix, stem + suffix.upper()}
    return sorted(path for name in names if os.path.lexists(path := Path(folder) / name))


def check_panorama(video: Path, trust_picture: bool = False) -> MediaInfo:
    """UserError unless the file holds an equirectangular picture of one eye, upright on the sphere.

    trust_picture: ask the metadata and the size only, and do not look at frames.
    """
    info = media.probe(video)
    if info.stereo not in ("", "mono"):
        raise UserError(
            f"'{video.name}' is stereo 360 ({info.stereo}): it holds two eyes; crop it to the left one"
        )
    if info.projection not in ("", "equirectangular"):
        raise UserError(
            f"'{video.name}' is stored as {info.projection}: convert it to an equirectangular picture"
        )
    if max(abs(angle) for angle in info.pose_deg) > 0.5:
        yaw, pitch, roll = info.pose_deg
        raise UserError(
            f"'{video.name}' states a turn of its sphere (yaw {yaw:g}, pitch {pitch:g}, roll {roll:g}) "
            "and not whether its sound is turned too: apply it to the picture or remove it"
        )
    aspect = info.width / info.height
    if abs(aspect - 2) > ASPECT_TOLERANCE:
        hint = {1: " (two eyes, top-bottom?)", 4: " (two eyes, side by side?)"}.get(round(aspect, 1), "")
        raise UserError(
            f"'{video.name}' is {info.width}x{info.height}{hint}, "
            "expected an equirectangular picture twice as wide as high"
        )
    if not trust_picture:
        _look_at(video, info)
    return info


def _look_at(video: Path, info: MediaInfo) -> None:
    """Refuses two eyes and flat pictures that no metadata tell, if three frames agree."""
    times_s = info.first_frame_s + (info.duration_s - info.first_frame_s) * np.array([0.1, 0.5, 0.9])
    frames = [_small(frame) for frame in media.read_frames(video, times_s.tolist())]
    top_bottom = min(_likeness(*np.split(frame, 2, axis=0)) for frame in frames)
    side_by_side = min(_likeness(*np.split(frame, 2, axis=1)) for frame in frames)
    if max(top_bottom, side_by_side) > _SAME_EYES:
        kind = "top-bottom" if top_bottom >= side_by_side else "side by side"
        raise UserError(
            f"'{video.name}' shows the same twice, {kind}: stereo 360? crop it to one eye (or trust_picture)"
        )
    if min(_seam(frame) for frame in frames) > _TORN_SEAM:
        raise UserError(
            f"'{video.name}' has left and right edges that do not meet: a flat picture? expected the whole "
            "sphere, equirectangular (or set trust_picture)"
        )


def _small(frame: np.ndarray) -> np.ndarray:
    """Grey (64, 128) float of an (H, W, 3) picture, by means over areas."""
    import cv2

    return cv2.resize(frame, (128, 64), interpolation=cv2.INTER_AREA).mean(axis=2)


def _likeness(first: np.ndarray, second: np.ndarray) -> float:
    """Correlation of two pictures without what is the same all along a row (sky over ground, which any two
    directions share); 0 where one has too little contrast to tell."""
    first, second = (half - half.mean(axis=1, keepdims=True) for half in (first, second))
    if min(first.std(), second.std()) < _LEAST_CONTRAST:
        return 0.0
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def _seam(frame: np.ndarray) -> float:
    """Step over the left-right edge against the mean step between far columns.

    0 without contrast, and where another pair of neighbours in the picture steps as far: a panorama may have
    a post or a bad stitch there. Of 26 ordinary films and photographs cut to 2:1 this finds 19.
    """
    far = np.abs(frame - np.roll(frame, frame.shape[1] // 2, axis=1)).mean()
    largest = np.abs(np.diff(frame, axis=1)).mean(axis=0).max()
    step = np.abs(frame[:, 0] - frame[:, -1]).mean()
    if far < _LEAST_CONTRAST or step < _BEYOND_LARGEST * largest:
        return 0.0
    return float(step / far)


def check_sound(path: Path) -> AudioInfo:
    """UserError unless the file's sound can be decoded and has a usable rate, whatever its channels."""
    info = media.probe_audio(path)
    low, high = RATES_HZ
    if not low <= info.rate <= high:
        raise UserError(f"'{path.name}' has sound at {info.rate} Hz, expected {low} to {high} Hz")
    return info


def check_lengths(video: Path, picture: MediaInfo, audio: Path, sound: AudioInfo) -> None:
    """UserError if picture and sound end further apart than coders explain: they may not belong together."""
    if abs(picture.duration_s - sound.duration_s) > LENGTH_TOLERANCE_S:
        where = "its sound" if audio == video else f"'{audio.name}'"
        raise UserError(
            f"'{video.name}' has {picture.duration_s:.2f} s of picture, and {where} lasts "
            f"{sound.duration_s:.2f} s: is one cut short, or of another take?"
        )


def channel_order(video: Path, audio: Path, asked: str = "stated") -> ChannelOrder:
    """The ambisonic order of `audio`: what a file says, or what the user says where none does.

    The first of: NAME.json beside audio or video, ambisonics.json in their folders (for all files there), the
    sound's own metadata, the video's (a copied track keeps its channels but loses its tags). asked: a name of
    channels.ORDERS, or "stated" for none. UserError if nobody knows, or if file and user disagree.
    """
    stated, where = _stated(video, audio)
    if asked == "stated":
        if stated is None:
            raise UserError(
                f"'{audio.name}' does not say in which order its ambisonic channels are (no SA3D box, no "
                "Opus ambisonics): state it for all files (channels ambix or fuma), or for this one in "
                f'{audio.stem}.json as {{"channels": "ambix"}}'
            )
        return stated
    wanted = order_of(asked)
    if stated is None:
        return wanted
    same = (stated.places, stated.normalisation) == (wanted.places, wanted.normalisation)
    if not same:
        raise UserError(
            f"'{audio.name}' is {stated} by its {where}, but {asked} ({wanted}) was asked for: correct one "
            f"of them ({audio.stem}.json beside it outranks its metadata)"
        )
    return stated


def _stated(video: Path, audio: Path) -> tuple[ChannelOrder | None, str]:
    names = [folder / f"{path.stem}.json" for path in (audio, video) for folder in [path.parent]]
    names += [path.parent / "ambisonics.json" for path in (audio, video)]
    for sidecar in dict.fromkeys(names):
        if sidecar.is_file() and (order := read_sidecar(sidecar)) is not None:
            return order, sidecar.name
    for path in dict.fromkeys((audio, video)):
        tag = media.ambisonic_tag(path)
        if tag is not None:
            return ChannelOrder(tag.places, tag.normalisation, tag.extra), tag.where
    return None, ""
