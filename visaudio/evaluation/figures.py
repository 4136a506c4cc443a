"""Pictures of a clip: what both ears hear, and the ILD over time with the truth drawn in."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import scipy.fft

from visaudio.data.dataset import Clip
from visaudio.evaluation import cues
from visaudio.evaluation.synth_benchmark import ACTIVE_DB
from visaudio.stored import write_whole

RANGE_DB = 70.0
TOP_HZ = 10000.0


def plot_clip(path: Path, clip: Clip, sounds: Mapping[str, np.ndarray], sample_rate: int) -> None:
    """A PNG: per sound (2, S) one row of left and right spectrograms, below them the ILD of all.

    The first of `sounds` is the truth. Needs matplotlib (ModuleNotFoundError without it).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 2.1 * len(sounds) + 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(len(sounds) + 1, 2, height_ratios=[1] * len(sounds) + [1.5])
    onsets = np.concatenate([source.onset_s for source in clip.sources]) if clip.sources else np.zeros(0)
    for row, (name, audio) in enumerate(sounds.items()):
        levels = spectrogram_db(audio, sample_rate)
        for ear, label in enumerate(("left", "right")):
            axes = figure.add_subplot(grid[row, ear])
            extent = (0, audio.shape[1] / sample_rate, 0, TOP_HZ / 1000)
            axes.imshow(
                levels[ear].T,
                origin="lower",
                aspect="auto",
                extent=extent,
                vmin=levels.max() - RANGE_DB,
                vmax=levels.max(),
            )
            axes.vlines(onsets, 0, 0.6, colors="w", linewidth=1)
            axes.set_title(f"{name}, {label} ear", fontsize=9)
            axes.set_ylabel("kHz")
    axes = figure.add_subplot(grid[-1, :])
    _draw_ild(axes, clip, sounds, sample_rate)
    names = ", ".join(f"{source.member} {source.class_name}" for source in clip.sources)
    figure.suptitle(f"{clip.id}: {names} (white ticks: true onsets)", fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=80, format=path.suffix.removeprefix(".") or None)
    write_whole(path, buffer.getvalue())


def _draw_ild(axes, clip: Clip, sounds: Mapping[str, np.ndarray], sample_rate: int) -> None:
    for number, (name, audio) in enumerate(sounds.items()):
        ild = cues.ild_db(audio, sample_rate)
        time = (np.arange(len(ild)) + 0.5) / cues.FRAME_RATE_HZ
        axes.plot(time, ild, color="k" if number == 0 else f"C{number}", linewidth=1.6, label=f"ILD, {name}")
    axes.set(xlabel="s", ylabel="ILD dB, left +", xlim=(0, clip.duration_s), ylim=(-20, 20))
    axes.axhline(0, color="0.7", linewidth=0.8)
    lateral = axes.twinx()
    for number, source in enumerate(clip.sources):
        time = np.arange(len(source.lateral_deg)) / clip.truth_rate_hz
        active = source.envelope_db > ACTIVE_DB
        shown = np.where(active, source.lateral_deg, np.nan)
        lateral.plot(time, shown, "--", color=f"C{7 + number}", label=f"lateral angle, {source.class_name}")
    lateral.set(ylabel="degrees, left +", ylim=(-90, 90))
    handles = [line for side in (axes, lateral) for line in side.get_legend_handles_labels()[0]]
    axes.legend(handles=handles, loc="upper right", fontsize=7, ncols=2)


def spectrogram_db(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """(2, S) -> (2, frames of 10 ms, bins up to TOP_HZ) power in dB."""
    window, hop = round(0.032 * sample_rate), round(0.01 * sample_rate)
    padded = np.pad(audio, ((0, 0), (window // 2, window)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, window, axis=1)[:, ::hop]
    power = np.abs(scipy.fft.rfft(windows * np.hanning(window), axis=-1)) ** 2
    bins = np.fft.rfftfreq(window, 1 / sample_rate) <= TOP_HZ
    return 10 * np.log10(power[..., bins] + 1e-9)
