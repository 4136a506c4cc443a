"""Draws README's picture: example frames, what each ear hears, and the level difference beside the truth.

    python docs/make_figures.py             runs the packaged model on examples/bird.mp4
    python docs/make_figures.py --truth     the scene's own sound only (no weights needed)

Needs `pip install -e ".[dev]"` (matplotlib). Writes docs/images/bird.png.
"""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bi_audio_dataset import media
from visaudio.evaluation import cues

ROOT = Path(__file__).parents[1]
NAME = "bird"
SEED = 42  # sample.py's default
LEFT, RIGHT, TRUTH, MODEL = "#2a6fdb", "#c8452c", "#9a9a9a", "#111111"
ACTIVE_BELOW_PEAK_DB = 30.0


def load_examples():
    """examples/make_clip.py as a module (the folder is no package)."""
    spec = importlib.util.spec_from_file_location("make_clip", ROOT / "examples" / "make_clip.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def generate(video: Path) -> tuple[np.ndarray, int]:
    """What sample.py makes of the video: (2, N) float32 and its rate."""
    import torch

    from visaudio.pipeline import ViSAudioPipeline

    pipeline = ViSAudioPipeline.from_pretrained(device="cpu")
    sound = pipeline(video, generator=torch.Generator().manual_seed(SEED))
    return sound.audio, sound.sample_rate


def curve(audio: np.ndarray, rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Times (F,) and ILD in dB (F,), nan where both ears are far below the clip's loudest frame."""
    level = cues.levels_db(audio, rate).max(axis=1)
    ild = np.where(level > level.max() - ACTIVE_BELOW_PEAK_DB, cues.ild_db(audio, rate), np.nan)
    return (np.arange(len(ild)) + 0.5) / cues.FRAME_RATE_HZ, ild


def draw(
    frames: np.ndarray,
    ears: np.ndarray,
    rate: int,
    lateral_deg: np.ndarray,
    truth: tuple[np.ndarray, int],
    heading: str,
):
    """The figure. frames (T, H, W, 3) u8; ears (2, N) is what the spectrograms show; lateral_deg (F,)."""
    from matplotlib import pyplot
    from matplotlib.gridspec import GridSpec

    duration_s = ears.shape[1] / rate
    figure = pyplot.figure(figsize=(10, 6.6), dpi=110)
    grid = GridSpec(4, 1, figure, height_ratios=[1.16, 1, 1, 1.5], hspace=0.12)
    strip = figure.add_subplot(grid[0])
    strip.imshow(np.concatenate(list(frames), axis=1), aspect="auto", extent=(0, duration_s, 0, 1))
    strip.set_title(heading, fontsize=10, loc="left")
    strip.axis("off")
    for row, (name, colour) in enumerate((("left ear", LEFT), ("right ear", RIGHT))):
        axis = figure.add_subplot(grid[1 + row])
        reference = 20 * np.log10(np.abs(ears).max() + 1e-9)
        axis.specgram(
            ears[row],
            NFFT=1024,
            noverlap=768,
            Fs=rate,
            cmap="magma",
            vmin=reference - 125,
            vmax=reference - 40,
        )
        axis.set(
            xlim=(0, duration_s), ylim=(0, 11000), yticks=[0, 5000, 10000], yticklabels=["0", "5", "10 kHz"]
        )
        axis.set_ylabel(name, color=colour)
        axis.tick_params(labelbottom=False)
    axis = figure.add_subplot(grid[3])
    angle = axis.twinx()
    angle.plot(
        np.arange(len(lateral_deg)) / 25, lateral_deg, ":", color=TRUTH, label="where it is (right axis)"
    )
    angle.set(ylim=(-72, 72), yticks=[-45, 0, 45], ylabel="lateral angle, degrees")
    axis.plot(
        *curve(*truth), color=TRUTH, linewidth=3, alpha=0.7, label="level difference of the scene itself"
    )
    if ears is not truth[0]:
        axis.plot(
            *curve(ears, rate), color=MODEL, linewidth=1.3, label="level difference of the model's sound"
        )
    axis.axhline(0, color=TRUTH, linewidth=0.5)
    axis.set(xlim=(0, duration_s), ylim=(-24, 24), xlabel="seconds", ylabel="left louder, dB")
    lines = [*axis.get_lines()[: 1 + (ears is not truth[0])], *angle.get_lines()]
    axis.legend(lines, [line.get_label() for line in lines], loc="upper left", fontsize=8, frameon=False)
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Draw README's picture.")
    parser.add_argument("--truth", action="store_true", help="the scene's own sound, no model")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images", metavar="DIR")
    options = parser.parse_args(arguments)
    import matplotlib

    matplotlib.use("Agg")
    example = load_examples().EXAMPLES[NAME]
    video = ROOT / "examples" / f"{NAME}.mp4"
    times_s = (np.arange(6) + 0.5) * example.duration_s / 6
    frames = media.read_frames(video, times_s, size=(256, 144))
    truth = example.truth_ears()
    ears, rate = truth if options.truth else generate(video)
    what = "the scene's own sound" if options.truth else "the sound that sample.py makes of it"
    figure = draw(frames, ears, rate, example.lateral_deg(), truth, f"examples/{NAME}.mp4 and {what}")
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / f"{NAME}.png"
    figure.savefig(path, bbox_inches="tight", pil_kwargs={"optimize": True})
    print(path)


if __name__ == "__main__":
    main()
