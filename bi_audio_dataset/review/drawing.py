"""The review page's pictures, drawn with OpenCV: (H, W, 3) uint8 RGB arrays.

Energy map: the panorama, brighter and redder where sound comes from, with the outline of the camera's view on
it. Level difference: ILD over time, positive (up) = left louder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from bi_audio_dataset import sphere

MAP_SIZE = (1024, 512)
PLOT_SIZE = (1024, 220)
RANGE_DB = 6.0  # energy this far under the highest is not coloured: a first-order beam falls no faster
ILD_LIMIT_DB = 20.0
START, END, PATH = (90, 220, 255), (255, 200, 60), (255, 255, 255)
SOURCE, CLEAR, GRID = (90, 255, 120), (250, 250, 250), (110, 110, 110)

Image = NDArray[np.uint8]
Line = NDArray[np.float64]


def view_outline(
    rotation: NDArray[np.floating], hfov_deg: float, aspect: float, width: int, height: int, points: int = 24
) -> list[Line]:
    """The border of a camera's view on a panorama: polylines of (column, row), cut where they cross the seam.

    rotation: camera-to-world (3, 3); aspect: width / height of the view. `points` a side.
    """
    side = math.tan(math.radians(hfov_deg) / 2)
    up = side / aspect
    along = np.linspace(-1, 1, points)
    edge = np.ones(points)
    left_up = np.concatenate(
        [
            np.stack([-along * side, up * edge], 1),  # top, left to right: y falls
            np.stack([-side * edge, -along * up], 1),
            np.stack([along * side, -up * edge], 1),
            np.stack([side * edge, along * up], 1),
        ]
    )
    rays = np.concatenate([np.ones((len(left_up), 1)), left_up], axis=1)
    return track(rays @ np.asarray(rotation, dtype=np.float64).T, width, height)


def track(directions: NDArray[np.floating], width: int, height: int) -> list[Line]:
    """Directions (N, 3) as polylines of (column, row) on a panorama, cut where they cross the seam."""
    columns, rows = sphere.angles_to_pixel(*sphere.angles(directions), width, height)
    cuts = np.flatnonzero(np.abs(np.diff(columns)) > width / 2) + 1
    return np.split(np.stack([columns, rows], axis=1), cuts)


def energy_overlay(panorama: Image, energy: NDArray[np.floating]) -> Image:
    """The panorama in grey, coloured by energy (h, w), equirectangular, over RANGE_DB below its highest;
    MAP_SIZE.
    """
    picture = cv2.resize(panorama, MAP_SIZE, interpolation=cv2.INTER_LINEAR)
    grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    base = (0.55 * grey + 0.45 * picture).astype(np.float32) * 0.8
    peak = float(energy.max())
    if peak <= 0:
        return base.astype(np.uint8)
    decibels = 10 * np.log10(np.maximum(energy / peak, 1e-12))
    strength = np.clip(1 + decibels / RANGE_DB, 0, 1).astype(np.float32)
    strength = np.clip(cv2.resize(strength, MAP_SIZE, interpolation=cv2.INTER_CUBIC), 0, 1)
    heat = cv2.applyColorMap((255 * strength).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    weight = (0.75 * strength)[..., None]
    return np.clip(base * (1 - weight) + heat * weight, 0, 255).astype(np.uint8)


def draw_map(
    background: Image,
    rotations: NDArray[np.floating],
    hfov_deg: float,
    aspect: float,
    moment: int | None = None,
    sources: Sequence[NDArray[np.floating]] = (),
) -> Image:
    """A copy of background with the grid, the camera's path and its view on it.

    rotations (F, 3, 3): camera-to-world. moment: the frame whose view is drawn; None: the first (blue) and
    the last (yellow). sources: world directions (F', 3) of objects that are known to sound, drawn in green.
    """
    image = np.ascontiguousarray(background.copy())
    height, width = image.shape[:2]
    _grid(image)
    for directions in sources:
        _lines(image, track(np.atleast_2d(directions), width, height), SOURCE, 2)
        _dot(
            image,
            np.atleast_2d(directions)[0 if moment is None else _at(moment, rotations, directions)],
            SOURCE,
        )
    _lines(image, track(rotations[:, :, 0], width, height), PATH, 1)
    shown = [(len(rotations) - 1, END), (0, START)] if moment is None else [(moment, START)]
    for frame, colour in shown:
        rotation = rotations[int(np.clip(frame, 0, len(rotations) - 1))]
        _lines(image, view_outline(rotation, hfov_deg, aspect, width, height), colour, 2)
        _dot(image, rotation[:, 0], colour)
    return image


def ild_track(
    ears: NDArray[np.floating], sample_rate: float, window_s: float = 0.05, floor_db: float = -60.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(times_s (T,) of the windows' middles, ild_db (T,)) of ears (2, N); positive = left louder.

    nan where both ears are quieter than floor_db relative to full scale; held within +-60 dB."""
    size = max(1, round(window_s * sample_rate))
    count = ears.shape[1] // size
    blocks = ears[:, : count * size].reshape(2, count, size).astype(np.float64)
    left, right = np.mean(blocks**2, axis=2)
    quiet = np.maximum(left, right) < 10 ** (floor_db / 10)
    ild = 10 * np.log10(np.maximum(left, 1e-12) / np.maximum(right, 1e-12))
    return (np.arange(count) + 0.5) * size / sample_rate, np.where(quiet, np.nan, np.clip(ild, -60, 60))


def draw_ild(
    times_s: NDArray[np.floating],
    ild_db: NDArray[np.floating],
    duration_s: float,
    moment_s: float | None = None,
) -> Image:
    """The plot of ild_track, PLOT_SIZE; what leaves +-ILD_LIMIT_DB is drawn at the border."""
    width, height = PLOT_SIZE
    image = np.full((height, width, 3), 24, np.uint8)
    left, right, top, bottom = 70, width - 12, 12, height - 28

    def x_of(seconds):
        return left + np.asarray(seconds) / duration_s * (right - left)

    def y_of(level):
        held = np.clip(level, -ILD_LIMIT_DB, ILD_LIMIT_DB)
        return (top + bottom) / 2 - held / ILD_LIMIT_DB * (bottom - top) / 2

    for level in (-20, -10, 0, 10, 20):
        row = round(float(y_of(level)))
        cv2.line(image, (left, row), (right, row), GRID if level else CLEAR, 1)
        _text(image, f"{level:+d} dB" if level else "0 dB", (4, row + 5))
    for second in range(math.floor(duration_s) + 1):
        column = round(float(x_of(second)))
        cv2.line(image, (column, bottom), (column, bottom + 4), GRID, 1)
        _text(image, f"{second} s", (min(column - 8, width - 32), height - 8))
    _text(image, "left louder", (left + 6, top + 17))
    _text(image, "right louder", (left + 6, bottom - 6))
    points = np.stack([x_of(times_s), y_of(ild_db)], axis=1)
    sounding = np.isfinite(ild_db)
    for run in np.split(points, np.flatnonzero(np.diff(sounding.astype(int))) + 1):
        if len(run) and np.isfinite(run).all():
            _lines(image, [run if len(run) > 1 else np.repeat(run, 2, axis=0)], END, 2)
    if moment_s is not None:
        column = round(float(x_of(np.clip(moment_s, 0, duration_s))))
        cv2.line(image, (column, top), (column, bottom), START, 2)
    return image


def blank() -> Image:
    """A dark panorama, for clips of which none was kept."""
    return np.full((MAP_SIZE[1], MAP_SIZE[0], 3), 24, np.uint8)


def _at(moment: int, rotations: NDArray[np.floating], directions: NDArray[np.floating]) -> int:
    count = len(np.atleast_2d(directions))
    return int(np.clip(round(moment / max(1, len(rotations) - 1) * (count - 1)), 0, count - 1))


def _grid(image: Image) -> None:
    height, width = image.shape[:2]
    for azimuth in (90, 0, -90):
        column = round((0.5 - azimuth / 360) * width)
        cv2.line(image, (column, 0), (column, height), GRID, 1)
        name = {90: "left", 0: "front", -90: "right"}[azimuth]
        _text(image, name, (column + 4, height - 6))
    cv2.line(image, (0, height // 2), (width, height // 2), GRID, 1)
    _text(image, "back", (4, height - 6))


def _lines(image: Image, lines: Sequence[Line], colour: tuple[int, int, int], thickness: int) -> None:
    for line in lines:
        points = np.round(line * 8).astype(np.int32)[:, None]  # three fractional bits
        cv2.polylines(image, [points], False, colour, thickness, cv2.LINE_AA, shift=3)


def _dot(image: Image, direction: NDArray[np.floating], colour: tuple[int, int, int]) -> None:
    ((column, row),) = track(direction[None], image.shape[1], image.shape[0])[0]
    cv2.circle(image, (round(column), round(row)), 6, colour, -1, cv2.LINE_AA)


def _text(image: Image, text: str, at: tuple[int, int]) -> None:
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.55, CLEAR, 1, cv2.LINE_AA)
