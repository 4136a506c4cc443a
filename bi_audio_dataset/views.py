"""The pictures of a window: several views out of one pass over the panorama, or the film itself."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bi_audio_dataset import media
from bi_audio_dataset.picture import PictureProbe
from bi_audio_dataset.render import block_frames
from bi_audio_dataset.viewport import Viewport

if TYPE_CHECKING:
    from bi_audio_dataset.build_config import BuildConfig

#: Pictures that wait for an encoder, per view.
WAITING = 16


def render_views(
    video: Path,
    times_s: NDArray[np.float64],
    cameras: list[tuple[NDArray[np.float64], float]],
    config: BuildConfig,
    probe: PictureProbe,
) -> list[bytes]:
    """H.264 files, one per camera: (rotations (F, 3, 3), hfov_deg), of the panorama at times_s (F,).

    The panorama is decoded once. The bytes do not depend on how many cameras there are.
    """
    lenses: list[Viewport] = []

    def views(frame: NDArray[np.uint8], number: int) -> list[NDArray[np.uint8]]:
        if not lenses:
            height, width = frame.shape[:2]
            for _, hfov_deg in cameras:
                lens = Viewport(config.width, config.height, math.radians(hfov_deg), width, height)
                lenses.append(lens)
        return [
            lens.render(frame, rotations[number])
            for lens, (rotations, _) in zip(lenses, cameras, strict=True)
        ]

    info = media.probe(video)
    probe.damage = media.Damage(config.fps)
    chunk = block_frames(info.width, info.height)
    blocks = media.iter_frames(video, times_s, chunk=chunk, damage=probe.damage)
    frames = _watched(blocks, len(times_s), config, probe)
    if len(cameras) == 1:
        return [_encode((views(frame, k)[0] for k, frame in enumerate(frames)), config)]
    return _fan_out(((views(frame, k)) for k, frame in enumerate(frames)), len(cameras), config)


def recode_film(
    video: Path, times_s: NDArray[np.float64], size: tuple[int, int], config: BuildConfig, probe: PictureProbe
) -> bytes:
    """H.264 file of a film at times_s (F,), brought to size (width, height)."""
    probe.damage = media.Damage(config.fps)
    blocks = media.iter_frames(video, times_s, size, damage=probe.damage)
    return _encode(_watched(blocks, len(times_s), config, probe), config)


def film_size(width: int, height: int, config: BuildConfig) -> tuple[int, int]:
    """(width, height) of a film inside the configured view: its own aspect, even sides, never enlarged."""
    scale = min(1.0, config.width / width, config.height / height)
    return max(2, 2 * round(width * scale / 2)), max(2, 2 * round(height * scale / 2))


def sampled(count: int, fps: float, rate_hz: float) -> list[int]:
    """Frame numbers, of `count`, that the picture filters look at."""
    step = max(1.0, fps / rate_hz)
    return [int(k * step) for k in range(math.ceil(count / step))]


def _watched(
    blocks: Iterator[NDArray[np.uint8]], count: int, config: BuildConfig, probe: PictureProbe
) -> Iterator[NDArray[np.uint8]]:
    wanted = set(sampled(count, config.fps, config.selection.static.rate_hz))
    number = 0
    for block in blocks:
        for frame in block:
            if number in wanted:
                probe.add(frame)
            yield frame
            number += 1


def _encode(frames: Iterator[NDArray[np.uint8]], config: BuildConfig) -> bytes:
    return media.encode_video_bytes(frames, config.fps, crf=config.crf, preset=config.preset)


def _fan_out(rows: Iterator[list[NDArray[np.uint8]]], count: int, config: BuildConfig) -> list[bytes]:
    """One encoder thread per view; an encoder that fails ends the whole, with its own error."""
    queues: list[queue.Queue] = [queue.Queue(WAITING) for _ in range(count)]
    results: list[bytes | BaseException | None] = [None] * count
    threads = [threading.Thread(target=_consume, args=(queues[i], results, i, config)) for i in range(count)]
    for thread in threads:
        thread.start()
    try:
        for row in rows:
            for waiting, picture in zip(queues, row, strict=True):
                waiting.put(picture)
    finally:
        for waiting in queues:
            waiting.put(None)
        for thread in threads:
            thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return list(results)


def _consume(waiting: queue.Queue, results: list, number: int, config: BuildConfig) -> None:
    pictures = _until_none(waiting)
    try:
        results[number] = _encode(pictures, config)
    except BaseException as error:  # handed to the thread that asked
        results[number] = error
        while waiting.get() is not None:  # or that thread would wait for room in the queue for ever
            pass


def _until_none(waiting: queue.Queue) -> Iterator[NDArray[np.uint8]]:
    while (picture := waiting.get()) is not None:
        yield picture
