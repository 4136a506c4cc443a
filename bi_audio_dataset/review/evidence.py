"""What the build keeps of a clip's recording for the review page: a small panorama and the sound field over
time.

DIR/review/evidence/<id>.<render>.npz, some 20 kB: neither can be had from the published row, which holds the
view and the ears alone. The field is kept as channel covariances, of which the energy of any first-order beam
is a quadratic form: exact, and smaller than a map. All directions are the recording's (world), not the
camera's.
"""

from __future__ import annotations

import io
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import cv2
import numpy as np
from numpy.typing import NDArray

from bi_audio_dataset import ambisonics, sphere
from bi_audio_dataset.schema import UserError
from bi_audio_dataset.workplace import EVIDENCE, Parts, file_stem, is_digest

FOLDER = "review/evidence"
PANORAMA_SIZE = (512, 256)
WINDOW_S = 0.25


@dataclass(frozen=True)
class Evidence:
    """panorama (H, W, 3) uint8 RGB, equirectangular, from the clip's middle; covariance (T, 4, 4) float32 of
    W, Y, Z, X, entry t over [t, t + 1) * window_s from the clip's start; render: which rendering of the clip
    it belongs to."""

    panorama: NDArray[np.uint8]
    covariance: NDArray[np.float32]
    window_s: float = WINDOW_S
    render: int = 0

    def energy_map(self, width: int, height: int, moment_s: float | None = None) -> NDArray[np.float64]:
        """Mean square of the max-rE beam towards each pixel's direction, (height, width), equirectangular;
        over the whole clip or in the window that holds moment_s."""
        matrix = self.covariance.astype(np.float64)
        if moment_s is None:
            matrix = matrix.mean(axis=0)
        else:
            matrix = matrix[int(np.clip(moment_s // self.window_s, 0, len(matrix) - 1))]
        columns, rows = np.meshgrid(np.arange(width), np.arange(height))
        azimuth, elevation = sphere.pixel_to_angles(columns, rows, width, height)
        beams = ambisonics.gains(azimuth, elevation)
        beams[1:] *= ambisonics.BEAM_GAIN
        beams /= 1 + ambisonics.BEAM_GAIN
        return np.einsum("ihw,ij,jhw->hw", beams, matrix, beams, optimize=True)


def collect(
    panorama: NDArray[np.uint8], foa: NDArray[np.floating], sample_rate: float, render: int = 0
) -> Evidence:
    """Evidence of a clip from a frame (H, W, 3) of its recording and its field (4, N), cut to the clip's
    window.
    """
    small = cv2.resize(panorama, PANORAMA_SIZE, interpolation=cv2.INTER_AREA)
    matrices = ambisonics.covariance(foa, max(1, round(WINDOW_S * sample_rate)))
    return Evidence(small, matrices.astype(np.float32), WINDOW_S, render)


def file_name(clip_id: str, render: int, suffix: str = ".npz") -> str:
    return f"{file_stem(clip_id)}.{render}{suffix}"


def pack(evidence: Evidence, clip_id: str) -> bytes:
    """The file of it, the same bytes each time."""
    done, jpeg = cv2.imencode(".jpg", evidence.panorama[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    if not done:
        raise ValueError(f"panorama of shape {evidence.panorama.shape} cannot be written as JPEG")
    buffer = io.BytesIO()
    # a long id's file is named by a digest
    named = {} if unquote(file_stem(clip_id)) == clip_id else {"clip_id": clip_id}
    np.savez(buffer, jpeg=jpeg, covariance=evidence.covariance, window_s=evidence.window_s, **named)
    return buffer.getvalue()


def save(folder: Path, clip_id: str, evidence: Evidence) -> Path:
    """Write beside and rename; evidence of other renderings of the clip is removed."""
    home = Path(folder) / FOLDER
    home.mkdir(parents=True, exist_ok=True)
    path = home / file_name(clip_id, evidence.render)
    beside = path.with_name(path.name + ".tmp")
    beside.write_bytes(pack(evidence, clip_id))
    os.replace(beside, path)
    _only(path)
    return path


def collect_from(parts: Parts, folder: Path) -> None:
    """Bring what workers have left beside the parts into the folder. Killed in between, it may be called
    again."""
    home = Path(folder) / FOLDER
    for name in sorted(parts.sizes(EVIDENCE)):
        path = home / (name.removesuffix(EVIDENCE) + ".npz")
        home.mkdir(parents=True, exist_ok=True)
        parts.take(name, path)
        # of an earlier rendering if it comes late, from a worker that was taken for dead
        _only(max(_files(home, _stem(path)), key=_render))


def _only(path: Path) -> None:
    for other in _files(path.parent, _stem(path)):
        if other != path:
            other.unlink()


def load(folder: Path, clip_id: str) -> Evidence | None:
    """None if the build kept none. UserError if the file is damaged."""
    paths = _files(Path(folder) / FOLDER, file_stem(clip_id))
    if not paths:
        return None
    path = max(paths, key=_render)
    try:
        with np.load(path, allow_pickle=False) as kept:
            panorama = cv2.imdecode(kept["jpeg"], cv2.IMREAD_COLOR)
            covariance, window_s = kept["covariance"], float(kept["window_s"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, cv2.error) as error:
        raise UserError(f"{path}: damaged ({' '.join(str(error).split())[:100]}): remove it") from None
    if panorama is None or covariance.ndim != 3 or covariance.shape[1:] != (4, 4) or not len(covariance):
        raise UserError(f"{path}: damaged: remove it")
    return Evidence(np.ascontiguousarray(panorama[..., ::-1]), covariance, window_s, _render(path))


def renders(folder: Path) -> dict[str, int]:
    """Clip id -> number of the rendering that lies in the folder, for the clips that have evidence; others
    are 0.
    """
    found: dict[str, int] = {}
    for path in (Path(folder) / FOLDER).glob("*.npz"):
        clip_id = _clip_id(path)
        found[clip_id] = max(_render(path), found.get(clip_id, 0))
    return found


def _files(home: Path, stem: str) -> list[Path]:
    """All renderings of a clip; the stem holds no character that a glob reads as a pattern."""
    return [path for path in home.glob(f"{stem}.*.npz") if _stem(path) == stem]


def _stem(path: Path) -> str:
    return path.name.rsplit(".", 2)[0]


def _clip_id(path: Path) -> str:
    stem = _stem(path)
    if not is_digest(stem):
        return unquote(stem)
    try:
        with np.load(path, allow_pickle=False) as kept:
            return str(kept["clip_id"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return stem  # damaged: `load` says so to who asks for this clip


def _render(path: Path) -> int:
    number = path.name.rsplit(".", 2)[1]
    return int(number) if number.isdigit() else 0
