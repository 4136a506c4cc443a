"""Procedural sprites of BiAudio-Synth: each sound class has a body of its own and moves as its sound does.

`draw(look, pose)` gives straight-alpha RGBA, uint8 (SIZE, SIZE, 4), y down. A strike is visible as contact at
the onset (mallet, stick, clapper), a hum as rotation, flapping or a flashing lamp, a call as an opening beak.
"""

from __future__ import annotations

import colorsys
import math
from functools import lru_cache

import cv2
import numpy as np

from bi_audio_dataset.sources.synthetic.looks import Look, Pose

SIZE = 96


def draw(look: Look, pose: Pose) -> np.ndarray:
    """RGBA picture of `look` at `pose`, uint8 (SIZE, SIZE, 4)."""
    canvas = Canvas(look)
    if look.sprite:
        _draw_picture(canvas, look, pose)
    else:
        _DRAWERS.get(look.kind, _badge)(canvas, look, pose)
    return canvas.rgba


class Canvas:
    """Antialiased drawing in unit coordinates: x and y in [-1, 1], y up."""

    def __init__(self, look: Look):
        self.rgba = np.zeros((SIZE, SIZE, 4), np.uint8)
        light = 0.55 + 0.4 * look.light
        self.body = _rgb(look.hue, 0.75, light)
        self.accent = _rgb(look.hue + 0.35 + 0.3 * look.accent, 0.7, 0.95 * light)
        self.dark = _rgb(look.hue, 0.6, 0.35 * light)
        self.pale = _rgb(look.accent, 0.2, 0.95)

    @staticmethod
    def _px(x: float, y: float) -> tuple[int, int]:
        # cv2 draws in sixteenths of a pixel with shift=4
        return int((x + 1) * 8 * SIZE), int((1 - y) * 8 * SIZE)

    def circle(self, x: float, y: float, radius: float, colour) -> None:
        cv2.circle(self.rgba, self._px(x, y), int(radius * 8 * SIZE), colour, -1, cv2.LINE_AA, 4)

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour, angle_deg: float = 0.0) -> None:
        axes = (int(rx * 8 * SIZE), int(ry * 8 * SIZE))
        cv2.ellipse(self.rgba, self._px(x, y), axes, -angle_deg, 0, 360, colour, -1, cv2.LINE_AA, 4)

    def polygon(self, points, colour) -> None:
        pixels = np.array([self._px(x, y) for x, y in points], np.int32)
        cv2.fillPoly(self.rgba, [pixels], colour, cv2.LINE_AA, 4)

    def line(self, x0: float, y0: float, x1: float, y1: float, width: float, colour) -> None:
        thickness = max(1, round(width * SIZE / 2))
        cv2.line(self.rgba, self._px(x0, y0), self._px(x1, y1), colour, thickness, cv2.LINE_AA, 4)


def _rgb(hue: float, saturation: float, value: float) -> tuple[int, int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, min(value, 1.0))
    return int(255 * red), int(255 * green), int(255 * blue), 255


def _turn(points, angle_rad: float, x0: float, y0: float):
    cos, sin = math.cos(angle_rad), math.sin(angle_rad)
    return [(x0 + (x - x0) * cos - (y - y0) * sin, y0 + (x - x0) * sin + (y - y0) * cos) for x, y in points]


def _swing(pose: Pose) -> float:
    """Mallet height 0 (contact) .. 1 (raised): lifted in the 0.25 s before an onset, down at it, rebound."""
    if pose.until_s < 0.1:
        return pose.until_s / 0.1
    if pose.until_s < 0.3:
        return 1.0 - 0.6 * (pose.until_s - 0.1) / 0.2
    return min(0.4, 4.0 * pose.since_s) if pose.since_s < 0.4 else 0.4


def _bell(c: Canvas, look: Look, pose: Pose) -> None:
    ringing = math.exp(-pose.since_s / 0.7) if pose.since_s < 4 else 0.0
    angle = 0.55 * ringing * math.cos(2 * math.pi * 1.8 * pose.since_s) if ringing else 0.0
    if pose.until_s < 0.2 and ringing < 0.3:
        angle -= 0.35 * (1 - pose.until_s / 0.2)
    width = 0.5 + 0.2 * look.proportion + 0.06 * look.member
    outline = [
        (-0.12, 0.62),
        (0.12, 0.62),
        (0.32 * width / 0.5, 0.2),
        (0.62 * width / 0.5, -0.5),
        (-0.62 * width / 0.5, -0.5),
        (-0.32 * width / 0.5, 0.2),
    ]
    c.line(-0.6, 0.85, 0.6, 0.85, 0.12, c.dark)
    c.line(0, 0.85, 0, 0.6, 0.08, c.dark)
    clapper = _turn([(0, -0.68)], -1.3 * angle, 0, 0.75)[0]
    c.line(0, 0.3, *clapper, 0.07, c.dark)
    c.circle(*clapper, 0.14, c.dark)
    c.polygon(_turn(outline, angle, 0, 0.75), c.body)
    rim = _turn([(-0.66 * width / 0.5, -0.42), (0.66 * width / 0.5, -0.42)], angle, 0, 0.75)
    c.line(*rim[0], *rim[1], 0.14, c.accent)


def _drum(c: Canvas, look: Look, pose: Pose) -> None:
    height = 0.45 + 0.3 * look.proportion + 0.1 * look.member
    top = -0.75 + height
    c.polygon([(-0.72, top), (0.72, top), (0.66, -0.8), (-0.66, -0.8)], c.body)
    c.ellipse(0, -0.8, 0.66, 0.14, c.body)
    for x in (-0.5, -0.17, 0.17, 0.5):
        c.line(x, top, x * 0.92 + 0.1, -0.85, 0.05, c.accent)
    press = 0.05 * math.exp(-pose.since_s / 0.08) if pose.since_s < 1 else 0.0
    c.ellipse(0, top - press, 0.74, 0.2, c.dark)
    c.ellipse(0, top - press, 0.66, 0.16, c.pale)
    lift = _swing(pose)
    tip_x, tip_y = -0.05, top + 0.1 + 0.75 * lift
    c.line(0.85, top + 0.45 + 0.35 * lift, tip_x, tip_y, 0.09, c.dark)
    c.circle(tip_x, tip_y, 0.15, c.accent)


def _woodblock(c: Canvas, look: Look, pose: Pose) -> None:
    bars = 1 + look.member
    span = 0.8 + 0.15 * look.proportion
    for i in range(bars):
        y = -0.55 + 0.32 * i
        half = span - 0.12 * i
        c.polygon([(-half, y - 0.13), (half, y - 0.13), (half, y + 0.13), (-half, y + 0.13)], c.body)
        c.line(-half * 0.7, y, half * 0.7, y, 0.05, c.dark)
    top = -0.55 + 0.32 * (bars - 1) + 0.13
    lift = _swing(pose)
    jump = 0.0 if pose.since_s > 0.1 else 0.06
    c.line(-0.85, top + 0.6 + 0.3 * lift, 0.1, top + 0.06 + 0.8 * lift + jump, 0.06, c.accent)
    c.circle(0.1, top + 0.08 + 0.8 * lift + jump, 0.11, c.pale)


def _ball(c: Canvas, look: Look, pose: Pose) -> None:
    squash = 0.3 * math.exp(-pose.since_s / 0.05) if pose.since_s < 0.5 else 0.0
    radius = 0.62
    c.ellipse(0, -0.3 * squash, radius * (1 + squash), radius * (1 - squash), c.body)
    angle = 100.0 * pose.time_s * (0.5 + look.proportion)
    if look.member == 0:
        c.ellipse(0, 0, radius * 0.95, radius * 0.28, c.accent, angle)
    elif look.member == 1:
        c.ellipse(0, 0, radius * 0.9, radius * 0.16, c.accent, angle)
        c.ellipse(0, 0, radius * 0.9, radius * 0.16, c.accent, angle + 90)
    else:
        for k in range(5):
            a = math.radians(angle + 72 * k)
            c.circle(0.36 * math.cos(a), 0.36 * math.sin(a), 0.14, c.accent)


def _engine(c: Canvas, look: Look, pose: Pose) -> None:
    shake = 0.05 * pose.active * (1 if int(pose.time_s * 25) % 2 else -1)
    roof = 0.1 + 0.15 * look.member + 0.15 * look.proportion
    c.polygon([(-0.9, -0.45), (0.9, -0.45), (0.9, -0.05 + shake), (-0.9, -0.05 + shake)], c.body)
    c.polygon(
        [(-0.55, -0.05 + shake), (0.5, -0.05 + shake), (0.3, roof + shake + 0.1), (-0.4, roof + shake + 0.1)],
        c.accent,
    )
    for x in (-0.52, 0.52):
        c.circle(x, -0.5, 0.27, c.dark)
        for k in range(3):
            angle = math.pi * k / 3 - 9.0 * pose.active * pose.time_s
            dx, dy = 0.22 * math.cos(angle), 0.22 * math.sin(angle)
            c.line(x - dx, -0.5 - dy, x + dx, -0.5 + dy, 0.06, c.pale)
    if pose.active:
        c.circle(0.92, -0.2 + shake, 0.1, (255, 255, 190, 255))
        for k in range(3):
            age = (pose.time_s * 2.2 + k / 3) % 1.0
            smoke = (150, 150, 150, int(235 - 120 * age))
            c.circle(-0.75 - 0.12 * age, 0.05 + 0.75 * age, 0.09 + 0.1 * age, smoke)


def _bee(c: Canvas, look: Look, pose: Pose) -> None:
    flap = pose.active * (1 if int(pose.time_s * 25) % 2 else -1)
    spread = 35 + 30 * flap if pose.active else -10
    long = 0.5 + 0.15 * look.proportion
    for side in (-1, 1):
        c.ellipse(0.25 * side, 0.42, 0.2, 0.5 if pose.active else 0.3, (225, 235, 250, 200), -side * spread)
    c.ellipse(0, -0.05, long, 0.34 + 0.04 * look.member, c.body)
    for k in range(2 + look.member):
        x = -0.3 + 0.6 * k / (1 + look.member)
        c.line(x, 0.22, x, -0.32, 0.1, (25, 20, 20, 255))
    c.circle(long, 0.02, 0.2, c.dark)
    c.polygon([(-long, 0.05), (-long, -0.15), (-long - 0.25, -0.05)], c.dark)


def _bird(c: Canvas, look: Look, pose: Pose) -> None:
    calling = pose.since_s < 0.22
    hop = 0.16 * math.sin(math.pi * pose.since_s / 0.22) if calling else 0.0
    gape = 0.3 if calling else 0.02
    y = -0.15 + hop
    c.line(-0.05, y - 0.3, -0.1, -0.85, 0.06, c.dark)
    c.line(0.12, y - 0.3, 0.1, -0.85, 0.06, c.dark)
    c.polygon([(-0.45, y + 0.05), (-0.95, y + 0.3 + hop), (-0.9, y - 0.05)], c.accent)
    c.ellipse(-0.05, y, 0.55, 0.36 + 0.12 * look.proportion, c.body, 18)
    c.ellipse(-0.15, y + 0.02 + hop, 0.34, 0.18, c.accent, 12 + 120 * hop)
    head_y = y + 0.45
    c.circle(0.4, head_y, 0.27, c.body)
    c.polygon([(0.6, head_y + 0.06), (0.6, head_y - 0.02), (0.95, head_y + 0.04 + gape)], (255, 170, 30, 255))
    c.polygon([(0.6, head_y + 0.0), (0.6, head_y - 0.1), (0.93, head_y - 0.06 - gape)], (255, 140, 20, 255))
    c.circle(0.46, head_y + 0.07, 0.06, (10, 10, 10, 255))
    for k in range(look.member):
        c.line(0.3 - 0.12 * k, head_y + 0.22, 0.2 - 0.14 * k, head_y + 0.5, 0.07, c.accent)


def _siren(c: Canvas, look: Look, pose: Pose) -> None:
    post = 0.3 + 0.15 * look.proportion
    c.polygon([(-post, -0.9), (post, -0.9), (post * 0.7, -0.2), (-post * 0.7, -0.2)], c.dark)
    for k in range(1 + look.member):
        c.line(-post * 0.8, -0.86 + 0.1 * k, post * 0.8, -0.86 + 0.1 * k, 0.05, c.pale)
    phase = (pose.time_s * 2.5) % 1.0
    if pose.active:
        glow = 0.5 + 0.5 * math.cos(2 * math.pi * phase)
        c.circle(0, 0.15, 0.5 + 0.4 * glow, (255, 230, 140, int(60 + 90 * glow)))
    lamp = tuple(int(v * (0.6 + 0.4 * pose.active)) for v in c.body[:3]) + (255,)
    c.ellipse(0, -0.05, 0.45, 0.55, lamp)
    if pose.active:
        c.ellipse(0.4 * math.sin(2 * math.pi * phase), 0.1, 0.16, 0.36, (255, 255, 235, 255))


def _box(c: Canvas, look: Look, pose: Pose) -> None:
    half = 0.5 + 0.2 * look.proportion
    c.polygon([(-half, -0.7), (half, -0.7), (half, 0.3), (-half, 0.3)], c.body)
    c.polygon([(-half, 0.3), (half, 0.3), (half * 0.7, 0.6), (-half * 0.7, 0.6)], c.accent)
    c.line(0, -0.7, 0, 0.6, 0.1, c.pale)


def _tree(c: Canvas, look: Look, pose: Pose) -> None:
    c.polygon([(-0.12, -0.9), (0.12, -0.9), (0.08, 0), (-0.08, 0)], (90, 60, 40, 255))
    wide = 0.45 + 0.25 * look.proportion
    for k in range(3):
        base = -0.35 + 0.4 * k
        c.polygon([(-wide + 0.12 * k, base), (wide - 0.12 * k, base), (0, base + 0.65)], c.body)


def _balloon(c: Canvas, look: Look, pose: Pose) -> None:
    sway = 0.06 * math.sin(2 * math.pi * 0.4 * pose.time_s)
    c.line(sway, -0.2, -sway, -0.95, 0.04, c.dark)
    c.ellipse(sway, 0.3, 0.45 + 0.1 * look.proportion, 0.58, c.body)
    c.circle(sway - 0.15, 0.55, 0.1, c.pale)


def _lamp(c: Canvas, look: Look, pose: Pose) -> None:
    c.line(0, -0.9, 0, 0.4, 0.1, c.dark)
    c.polygon([(-0.5, 0.1), (0.5, 0.1), (0.25 + 0.1 * look.proportion, 0.7), (-0.25, 0.7)], c.pale)
    c.ellipse(0, -0.9, 0.4, 0.1, c.dark)


def _badge(c: Canvas, look: Look, pose: Pose) -> None:
    """Any class without a body of its own (sounds from a folder): a star that jumps out at each onset."""
    grow = 1.0 + (0.45 * math.exp(-pose.since_s / 0.12) if pose.since_s < 1 else 0.0) + 0.05 * pose.active
    points = 3 + sum(look.kind.encode()) % 6
    radius = 0.6 * grow
    star = []
    for k in range(2 * points):
        r = radius if k % 2 == 0 else radius * (0.4 + 0.3 * look.proportion)
        angle = math.pi * k / points + 0.4 * pose.active * pose.time_s
        star.append((r * math.cos(angle), r * math.sin(angle)))
    c.polygon(star, c.body)
    c.circle(0, 0, 0.2, c.accent)


@lru_cache(maxsize=64)
def _load_picture(path: str) -> np.ndarray:
    picture = cv2.imread(path, cv2.IMREAD_UNCHANGED)
    if picture is None or picture.ndim != 3:
        from bi_audio_dataset.schema import UserError

        raise UserError(f"sprite {path}: not a readable colour picture; give PNG files with transparency")
    if picture.shape[2] == 3:
        picture = np.concatenate([picture, np.full((*picture.shape[:2], 1), 255, np.uint8)], axis=2)
    return cv2.resize(cv2.cvtColor(picture, cv2.COLOR_BGRA2RGBA), (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def _draw_picture(c: Canvas, look: Look, pose: Pose) -> None:
    """A picture moves as a whole: it jumps at an onset, and shakes while it hums."""
    hit = math.exp(-pose.since_s / 0.1) if pose.since_s < 1 else 0.0
    scale = 0.72 * (1 + 0.3 * hit)
    shake = 6.0 * pose.active * math.sin(2 * math.pi * 6 * pose.time_s)
    matrix = cv2.getRotationMatrix2D((SIZE / 2, SIZE / 2), shake, scale)
    c.rgba = cv2.warpAffine(_load_picture(look.sprite), matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR)


_DRAWERS = {
    "bell": _bell,
    "drum": _drum,
    "woodblock": _woodblock,
    "ball": _ball,
    "engine": _engine,
    "bee": _bee,
    "bird": _bird,
    "siren": _siren,
    "box": _box,
    "tree": _tree,
    "balloon": _balloon,
    "lamp": _lamp,
}
