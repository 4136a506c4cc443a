"""Which versions of libraries a build's bytes come from: recorded in build.json, checked when it goes on.

build.json has "libraries" {name: version} and "encoder" {setting: value}. An unfinished build does not go on
with others, unless that is asked for (--any-version): then build.json says "1.2 and 1.3". A finished dataset
is left alone, whatever is installed.
"""

from __future__ import annotations

import functools
import importlib.metadata
import inspect
import json
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from bi_audio_dataset.schema import UserError

#: What is imported -> by which names it may be installed.
PACKAGES = {
    "av": ("av",),
    "datasets": ("datasets",),
    "decord": ("decord2", "decord", "eva-decord"),
    "numpy": ("numpy",),
    "opencv": ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless"),
    "pyarrow": ("pyarrow",),
    "scipy": ("scipy",),
    "soundfile": ("soundfile",),
    "soxr": ("soxr",),
}
#: Of FFmpeg, as PyAV brings it along.
FFMPEG = ("libavcodec", "libavformat", "libavutil", "libswresample", "libswscale")
#: What only the writing of shards depends on.
SHARDS = ("datasets", "pyarrow")
#: The keys of build.json that this file is about: they do not tell builds apart.
KEYS = ("libraries", "encoder")


@functools.cache
def _versions() -> tuple[tuple[str, str], ...]:
    import av
    import soundfile

    found = {"libsndfile": soundfile.__libsndfile_version__, "x264": _x264()}
    for name, packages in PACKAGES.items():
        for package in packages:
            try:
                found[name] = importlib.metadata.version(package)
                break
            except importlib.metadata.PackageNotFoundError:
                continue
    for name in FFMPEG:
        if name in av.library_versions:
            found[name] = ".".join(str(number) for number in av.library_versions[name])
    return tuple(sorted(found.items()))


def _x264() -> str:
    """What libx264 writes of itself into a film."""
    import numpy as np

    from bi_audio_dataset import media

    film = media.encode_video_bytes([np.zeros((16, 16, 3), np.uint8)], 25)
    said = re.search(rb"x264 - core ([0-9]+(?: r[0-9]+\w*(?: [0-9a-f]+)?)?)", film)
    return said[1].decode() if said else "unknown"


def versions() -> dict[str, str]:
    """Name -> version of each library that a clip's bytes depend on, of those that are installed."""
    return dict(_versions())


def encoder() -> dict[str, Any]:
    """How H.264 is written beside what the config says."""
    from bi_audio_dataset.media.encode import STABLE_X264, write_video

    threads = inspect.signature(write_video).parameters["threads"].default
    return {"name": "libx264", "threads": threads, "x264_params": STABLE_X264}


def differences(recorded: Mapping[str, Any], only: Collection[str] | None = None) -> list[str]:
    """What is installed in another version than build.json or a recipe says, a line each; nothing where it
    says nothing. only: of these libraries."""
    if "libraries" not in recorded:
        return []
    words = []
    for there, here in ((recorded["libraries"], versions()), (recorded.get("encoder", {}), encoder())):
        for name in sorted({*there, *here}):
            if only is not None and name not in only:
                continue
            if str(here.get(name, "none")) not in str(there.get(name, "none")).split(" and "):
                words.append(f"{name} is {there.get(name, 'none')} there, {here.get(name, 'none')} here")
    return words


def check(
    output: Path, any_version: bool = False, only: Collection[str] | None = None, write: bool = True
) -> None:
    """Before an unfinished build goes on: UserError where its clips came from other versions; with
    any_version build.json names both from now on (write=False: it is left as it is)."""
    path = Path(output) / "build.json"
    recorded = json.loads(path.read_text())
    words = differences(recorded, only)
    if not words:
        return
    if not any_version:
        raise UserError(
            f"'{output}' was begun with other versions of libraries ({'; '.join(words[:3])}): install those, "
            "or --any-version and accept clips of both"
        )
    if not write:
        return
    for key, here in zip(KEYS, (versions(), encoder()), strict=True):
        there = recorded.get(key, {})
        for name in sorted({*there, *here}):
            was, now = str(there.get(name, "none")), str(here.get(name, "none"))
            if now not in was.split(" and ") and (only is None or name in only):
                there[name] = f"{was} and {now}"
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")
    os.replace(beside, path)
