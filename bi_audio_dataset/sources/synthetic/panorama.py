"""Draws a scene as an equirectangular film: a procedural background and sprites set on the sphere."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator

import cv2
import numpy as np

from bi_audio_dataset.schema import TRUTH_RATE_HZ
from bi_audio_dataset.sources.synthetic.looks import Pose, pose_at, sample_unit
from bi_audio_dataset.sources.synthetic.scene import Scene, SceneObject
from bi_audio_dataset.sources.synthetic.sprites import draw

_STILL = Pose(0.0, 0.0, np.inf, np.inf, 0.0)


def render_panorama(scene: Scene, width: int = 768, height: int = 384) -> Iterator[np.ndarray]:
    """Pictures (height, width, 3) uint8 at `TRUTH_RATE_HZ`; column 0 is azimuth 180 degrees, row 0 is up."""
    background = draw_background(scene.background_seed, scene.held_out, width, height)
    still = [d for d in scene.distractors if np.ptp(d.azimuth_rad) == 0]
    for item in still:
        sprite = draw(item.look, _STILL)
        paste(background, sprite, item.azimuth_rad[0], item.elevation_rad[0], item.size_rad[0])
    moving = [d for d in scene.distractors if np.ptp(d.azimuth_rad) > 0]
    # far objects first, so that near ones cover them
    ordered = moving + sorted(scene.objects, key=lambda o: -o.distance_m[0])
    for frame in range(round(scene.duration_s * TRUTH_RATE_HZ)):
        picture = background.copy()
        for item in ordered:
            # the middle of the picture's time on screen, so that a contact is never shown late
            pose = _pose(item, (frame + 0.5) / TRUTH_RATE_HZ)
            paste(
                picture,
                draw(item.look, pose),
                item.azimuth_rad[frame],
                item.elevation_rad[frame],
                item.size_rad[frame],
            )
        yield picture


def _pose(item: SceneObject, time_s: float) -> Pose:
    return pose_at(time_s, item.events, item.kind) if item.sound is not None else _STILL


def paste(picture: np.ndarray, sprite: np.ndarray, azimuth: float, elevation: float, size_rad: float) -> None:
    """Blend `sprite` (S, S, 4) into `picture`, tangent to the sphere at the angles given, `size_rad` wide."""
    height, width = picture.shape[:2]
    reach = 0.75 * size_rad
    row_centre = (0.5 - elevation / np.pi) * height
    rows = np.arange(
        max(0, int(row_centre - reach / np.pi * height)),
        min(height, int(row_centre + reach / np.pi * height) + 2),
    )
    half_columns = int(reach / np.cos(min(abs(elevation) + reach, 1.45)) / (2 * np.pi) * width) + 2
    column_centre = int((0.5 - azimuth / (2 * np.pi)) * width)
    columns = np.arange(column_centre - half_columns, column_centre + half_columns + 1)
    az = (0.5 - (columns + 0.5) / width) * 2 * np.pi - azimuth
    el = (0.5 - (rows + 0.5) / height) * np.pi
    cos_el, sin_el = np.cos(el)[:, None], np.sin(el)[:, None]
    cos0, sin0 = np.cos(elevation), np.sin(elevation)
    forward = cos_el * np.cos(az) * cos0 + sin_el * sin0
    right = -cos_el * np.sin(az)[None]
    up = sin_el * cos0 - cos_el * np.cos(az) * sin0
    scale = sprite.shape[0] / (2 * np.tan(size_rad / 2)) / np.maximum(forward, 1e-3)
    map_x = (right * scale + sprite.shape[0] / 2 - 0.5).astype(np.float32)
    map_y = (-up * scale + sprite.shape[0] / 2 - 0.5).astype(np.float32)
    patch = cv2.remap(
        sprite, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(0, 0, 0, 0)
    )
    alpha = patch[..., 3:].astype(np.float32) / 255.0
    target = np.ix_(rows, columns % width)
    blended = picture[target] * (1 - alpha) + patch[..., :3] * alpha
    picture[target] = (blended + 0.5).astype(np.uint8)


def draw_background(seed: int, held_out: bool, width: int, height: int) -> np.ndarray:
    """Sky, ground, blocks on the horizon and grain; wraps around. Training never uses held-out colours."""
    rng = np.random.default_rng(seed)
    sky, ground, block = (sample_unit(rng, held_out) for _ in range(3))
    rows = np.linspace(0, 1, height)[:, None, None]
    horizon = 0.52 + 0.06 * rng.random()
    top = _colour(sky, 0.15 + 0.4 * rng.random(), 0.55 + 0.4 * rng.random())
    low = _colour(sky + 0.05, 0.2 * rng.random(), 0.6 + 0.35 * rng.random())
    floor = _colour(ground, 0.15 + 0.35 * rng.random(), 0.25 + 0.45 * rng.random())
    above = top + (low - top) * rows / horizon
    picture = np.where(rows < horizon, above, floor * (0.75 + 0.5 * (rows - horizon)))
    picture = np.repeat(picture, width, axis=1).astype(np.float32)
    for _ in range(rng.integers(4, 16)):
        x0, w = rng.integers(width), rng.integers(10, 70)
        top_row = int(horizon * height - rng.integers(4, 50))
        shade = _colour(block + 0.1 * rng.random(), 0.3 * rng.random(), 0.3 + 0.5 * rng.random())
        picture[top_row : int(horizon * height), (x0 + np.arange(w)) % width] = shade
    grain = np.zeros((height, width), np.float32)
    for cells, strength in ((8, 14.0), (32, 9.0), (128, 5.0)):
        noise = rng.standard_normal((max(cells // 2, 1), cells)).astype(np.float32)
        wrapped = np.concatenate([noise, noise[:, :1]], axis=1)
        full = cv2.resize(wrapped, (width + width // cells, height), interpolation=cv2.INTER_LINEAR)
        grain += strength * rng.random() * full[:, :width]
    return np.clip(picture * 255 + grain[..., None], 0, 255).astype(np.uint8)


def _colour(hue: float, saturation: float, value: float) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value), np.float32)
