"""The ground truth of BiAudio-Synth clips as dense arrays: what the heads of the encoder stages learn.

Legend: C clips, T frames of one rate, K source slots (empty slots are never visible), E ears, M mel bands.
Picture coordinates are fractions of the picture: x = 0 left edge, 1 right edge; y = 0 top, 1 bottom.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from visaudio.data.dataset import Clip

ACTIVE_DB = -40.0


def project(
    azimuth_deg: np.ndarray, elevation_deg: np.ndarray, hfov_deg: float, aspect: float
) -> tuple[np.ndarray, np.ndarray]:
    """Perspective projection of camera-frame directions (any shape) to picture coordinates (x, y).

    x = 0.5 - 0.5 tan(azimuth) / tan(hfov / 2) at elevation 0: positive azimuth (left) is a small x.
    aspect is width / height. Directions behind the camera give nan.
    """
    azimuth, elevation = np.radians(azimuth_deg), np.radians(elevation_deg)
    front = np.cos(azimuth) * np.cos(elevation)
    front = np.where(front > 1e-6, front, np.nan)
    half = np.tan(np.radians(hfov_deg) / 2)
    x = 0.5 - 0.5 * (np.sin(azimuth) * np.cos(elevation) / front) / half
    y = 0.5 - 0.5 * (np.sin(elevation) / front) / half * aspect
    return x, y


@dataclass(frozen=True)
class PictureTruth:
    """Sources in the picture at the frames of a cache. visible, active: bool; label: -1 in empty slots."""

    classes: tuple[str, ...]
    x: np.ndarray  # (C, T, K)
    y: np.ndarray  # (C, T, K)
    half_width: np.ndarray  # (C, T, K), in picture widths
    half_height: np.ndarray  # (C, T, K), in picture heights
    visible: np.ndarray  # (C, T, K)
    active: np.ndarray  # (C, T, K): the envelope is above ACTIVE_DB
    label: np.ndarray  # (C, K) index into classes


def class_list(clips: list[Clip]) -> tuple[str, ...]:
    return tuple(sorted({name for clip in clips for name in clip.class_names}))


def picture_truth(clips: list[Clip], classes: tuple[str, ...], fps: float, num_frames: int) -> PictureTruth:
    """Truth at the times i / fps (the nearest truth frame). Sources of unknown class are left out."""
    slots = max(1, max((len(clip.sources) for clip in clips), default=1))
    shape = (len(clips), num_frames, slots)
    floats = {name: np.zeros(shape, dtype=np.float32) for name in ("x", "y", "half_width", "half_height")}
    visible, active = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    label = np.full((len(clips), slots), -1, dtype=np.int64)
    times = np.arange(num_frames) / fps
    for c, clip in enumerate(clips):
        for k, source in enumerate(clip.sources):
            if source.class_name not in classes:
                continue
            label[c, k] = classes.index(source.class_name)
            index = nearest_frame(times, clip.truth_rate_hz, len(source.visible))
            aspect = clip.width / clip.height
            x, y = project(source.azimuth_deg[index], source.elevation_deg[index], clip.hfov_deg, aspect)
            half_view = np.tan(np.radians(clip.hfov_deg) / 2)
            half = np.tan(np.radians(source.size_deg[index]) / 2) / (2 * half_view)
            seen = source.visible[index] & np.isfinite(x) & np.isfinite(y)
            floats["x"][c, :, k] = np.where(seen, x, 0.5)
            floats["y"][c, :, k] = np.where(seen, y, 0.5)
            floats["half_width"][c, :, k] = half
            floats["half_height"][c, :, k] = half * aspect
            visible[c, :, k] = seen
            active[c, :, k] = source.envelope_db[index] > ACTIVE_DB
    return PictureTruth(classes=classes, visible=visible, active=active, label=label, **floats)


def onset_tracks(clips: list[Clip], rate_hz: float, num_frames: int, sigma_s: float) -> np.ndarray:
    """(C, num_frames) float32: max over the onsets of visible sources of a Gaussian around frame centres.

    Frame i covers i / rate_hz to (i + 1) / rate_hz. Onsets while their source is out of view do not count.
    """
    centres = (np.arange(num_frames) + 0.5) / rate_hz
    tracks = np.zeros((len(clips), num_frames), dtype=np.float32)
    for c, clip in enumerate(clips):
        for onset in visible_onsets(clip):
            tracks[c] = np.maximum(tracks[c], np.exp(-0.5 * ((centres - onset) / sigma_s) ** 2))
    return tracks


def source_onset_tracks(
    clips: list[Clip], rate_hz: float, num_frames: int, sigma_s: float, slots: int
) -> np.ndarray:
    """(C, num_frames, K) float32: as `onset_tracks`, each source slot by itself, in view or not."""
    centres = (np.arange(num_frames) + 0.5) / rate_hz
    tracks = np.zeros((len(clips), num_frames, slots), dtype=np.float32)
    for c, clip in enumerate(clips):
        for k, source in enumerate(clip.sources[:slots]):
            if len(source.onset_s):
                gap = np.abs(centres[:, None] - np.asarray(source.onset_s)[None]).min(axis=1)
                tracks[c, :, k] = np.exp(-0.5 * (gap / sigma_s) ** 2)
    return tracks


def visible_onsets(clip: Clip) -> list[float]:
    """Onset times of the clip whose source is in view at that moment, in seconds, sorted."""
    found = []
    for source in clip.sources:
        if len(source.onset_s):
            index = nearest_frame(source.onset_s, clip.truth_rate_hz, len(source.visible))
            found += [float(t) for t, seen in zip(source.onset_s, source.visible[index], strict=True) if seen]
    return sorted(found)


def nearest_frame(times_s: np.ndarray, rate_hz: float, length: int) -> np.ndarray:
    """Indices of the truth frames nearest to times_s."""
    return np.clip(np.round(np.asarray(times_s) * rate_hz).astype(int), 0, length - 1)


def band_levels_db(
    audio: np.ndarray, sample_rate: int, rate_hz: float, num_frames: int, bands: int, floor_db: float
) -> np.ndarray:
    """(2, samples) -> (2, num_frames, bands) float32: level per ear, frame of 1 / rate_hz s and mel band.

    In dB relative to the clip's loudest frame (all bands, louder ear), floored at floor_db (negative).
    """
    length = round(sample_rate / rate_hz)
    samples = np.zeros((2, num_frames * length), dtype=np.float32)
    have = min(audio.shape[1], samples.shape[1])
    samples[:, :have] = audio[:, :have]
    n_fft = 2 * length
    # frames twice as long as their hop, centred, so that a window does not cut a sound at a frame's edge
    padded = np.pad(samples, ((0, 0), (length // 2, n_fft - length // 2)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, n_fft, axis=1)[:, ::length][:, :num_frames]
    power = np.abs(np.fft.rfft(windows * np.hanning(n_fft), axis=-1)) ** 2
    energy = power @ _mel_weights(sample_rate, n_fft, bands)
    reference = max(float(energy.sum(axis=-1).max()), 1e-9)
    return np.maximum(10 * np.log10(energy / reference + 1e-12), floor_db).astype(np.float32)


def _mel_weights(sample_rate: int, n_fft: int, bands: int) -> np.ndarray:
    """(n_fft / 2 + 1, bands) of 0 and 1: bands even on the mel scale from 60 Hz up."""
    mel = 2595 * np.log10(1 + np.fft.rfftfreq(n_fft, 1 / sample_rate) / 700)
    edges = np.linspace(2595 * np.log10(1 + 60 / 700), mel[-1], bands + 1)
    index = np.clip(np.searchsorted(edges, mel, side="right") - 1, 0, bands - 1)
    weights = np.zeros((len(mel), bands))
    weights[np.arange(len(mel)), index] = mel >= edges[0]
    return weights
