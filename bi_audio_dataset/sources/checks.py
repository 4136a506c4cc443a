"""What every source asks of a file before it calls it a recording. Each refusal is one line with a reason."""

from __future__ import annotations

import os
from pathlib import Path

from bi_audio_dataset import media
from bi_audio_dataset.channels import ChannelOrder, order_of, read_sidecar
from bi_audio_dataset.media import AudioInfo, MediaInfo
from bi_audio_dataset.schema import UserError
from bi_audio_dataset.unusable import Unusable

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov")
AUDIO_SUFFIXES = (".flac", ".wav", ".amb", ".ogg", ".opus", ".m4a", ".caf")
#: Below this a sound holds little of what tells the ears apart; above, no recorder goes.
RATES_HZ = (16_000, 192_000)


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
    """The sound file beside the video, else the video itself. Unusable if neither has sound."""
    audio = sound_beside(video)
    if audio is None and not picture.audio_channels:
        wanted = ", ".join(video.stem + suffix for suffix in AUDIO_SUFFIXES[:2])
        why = f"'{video.name}' has no sound that can be decoded, and none lies beside it ({wanted}, ...)"
        raise Unusable({"no_sound": why})
    return audio or video


def _with_suffix(folder: Path, stem: str, suffix: str) -> list[Path]:
    # not Path.with_suffix: a stem may itself hold a dot
    names = {stem + suffix, stem + suffix.upper()}
    return sorted(path for name in names if os.path.lexists(path := Path(folder) / name))


def check_panorama(video: Path) -> MediaInfo:
    """Unusable where the file states that its picture is no equirectangular one of one eye, upright on the
    sphere. How it looks, and its sides, are for a filter (picture.look_at)."""
    info = media.probe(video)
    if info.stereo not in ("", "mono"):
        why = f"'{video.name}' is stereo 360 ({info.stereo}): it holds two eyes; crop it to the left one"
        raise Unusable({"stereo_360": why})
    if info.projection not in ("", "equirectangular"):
        why = f"'{video.name}' is stored as {info.projection}: convert it to an equirectangular picture"
        raise Unusable({"projection": why})
    if max(abs(angle) for angle in info.pose_deg) > 0.5:
        yaw, pitch, roll = info.pose_deg
        why = (
            f"'{video.name}' states a turn of its sphere (yaw {yaw:g}, pitch {pitch:g}, roll {roll:g}) "
            "and not whether its sound is turned too: apply it to the picture or remove it"
        )
        turn = zip(("yaw", "pitch", "roll"), info.pose_deg, strict=True)
        raise Unusable({"turned_sphere": why}, {f"turned_sphere.{name}_deg": angle for name, angle in turn})
    return info


def check_sound(path: Path) -> AudioInfo:
    """Unusable unless the file's sound has a usable rate, whatever its channels; UserError unless it can be
    decoded."""
    info = media.probe_audio(path)
    low, high = RATES_HZ
    if not low <= info.rate <= high:
        why = f"'{path.name}' has sound at {info.rate} Hz, expected {low} to {high} Hz"
        raise Unusable({"sample_rate": why}, {"sample_rate.hz": info.rate})
    return info


def channel_order(video: Path, audio: Path, asked: str = "stated") -> ChannelOrder:
    """The ambisonic order of `audio`: what a file says, or what the user says where none does.

    The first of: NAME.json beside audio or video, ambisonics.json in their folders (for all files there), the
    sound's own metadata, the video's (a copied track keeps its channels but loses its tags). asked: a name of
    channels.ORDERS, or "stated" for none. Unusable if nobody knows, or if file and user disagree.
    """
    stated, where = _stated(video, audio)
    if asked == "stated":
        if stated is None:
            why = (
                f"'{audio.name}' does not say in which order its ambisonic channels are (no SA3D box, no "
                "Opus ambisonics): state it for all files (channels ambix or fuma), or for this one in "
                f'{audio.stem}.json as {{"channels": "ambix"}}'
            )
            raise Unusable({"channel_order": why})
        return stated
    wanted = order_of(asked)
    if stated is None:
        return wanted
    same = (stated.places, stated.normalisation) == (wanted.places, wanted.normalisation)
    if not same:
        why = (
            f"'{audio.name}' is {stated} by its {where}, but {asked} ({wanted}) was asked for: correct one "
            f"of them ({audio.stem}.json beside it outranks its metadata)"
        )
        raise Unusable({"channel_order": why})
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
