#!/usr/bin/env python
"""Why an ILD error is what it is: how large the ILD of a system's sounds is, and whether the ears agree.

    python benchmarks/ild_spread.py --dataset data/benchmark --output runs/ild_spread \\
        --system dual=runs/ablation/dual-0/sounds/model

Of the clips of one visible source, frames (80 ms at 25 Hz) in which it sounds. An ILD that is right but for
chance jumps from frame to frame has an error as large as the jumps; mono, whose ILD is always 0, has none of
them. Columns, with 95 % intervals over clips:

- between clips: deviation of the clips' mean ILD;
- within a clip: deviation around the clip's mean, root mean square over clips;
- from frame to frame: root mean square of the ILD's change between neighbouring frames;
- of the truth's: the factor that best maps the truth's ILD to the system's (least squares);
- IACC: of frames that are not silent (docs/metrics.md); 1 is one sound in both ears but for delay and level.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bi_audio_dataset.schema import UserError
from visaudio import tables
from visaudio.cli.benchmark_scoring import add_clip_options, named_folder
from visaudio.cli.common import Parser, guard
from visaudio.evaluation import interaural, references
from visaudio.evaluation.baselines.sources import sounds_of
from visaudio.evaluation.intervals import RESAMPLES, draws, interval
from visaudio.evaluation.measures import Sound, finite_mean
from visaudio.evaluation.reading import read_whole
from visaudio.evaluation.synth_benchmark import active_frames
from visaudio.evaluation.truth_files import read_truth

ROOT = Path(__file__).resolve().parents[1]
TRUTH, NAME = "the truth", "ild_spread"
HEAD = ("between clips (dB)", "within a clip (dB)", "from frame to frame (dB)", "of the truth's", "IACC")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    given = list(sys.argv[1:] if arguments is None else arguments)
    return guard(lambda: run(options, tables.shown_command("benchmarks/ild_spread.py", given)))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_clip_options(parser)
    add = parser.add_argument
    add("--system", action="append", required=True, metavar="NAME=DIR", help="its sounds; may be repeated")
    add("--output", type=Path, required=True, help="folder for the clips' own sounds")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace, command: str) -> int:
    tables.check_part(options.write_to, NAME)
    rows = references.open_rows(options.dataset, "test", options.config)
    ids = sorted(rows.ids)[: options.limit]
    systems = {name: sounds_of(folder, ids, f"--system {name}") for name, folder in named(options.system)}
    true = references.write_out(rows, ids, options.output, videos=False)
    gated = [clip for clip in ids if "gated" in true[clip].groups]
    if len(gated) < 2:
        raise UserError(f"'{options.dataset}': {len(gated)} clips of one visible source, expected at least 2")
    active = {clip: active_frames(read_truth(true[clip].truth).sources[0]) for clip in gated}
    reference = heard({clip: true[clip].sound for clip in gated}, active, TRUTH)
    found = {TRUTH: reference}
    found |= {name: heard({c: files[c] for c in gated}, active, name) for name, files in systems.items()}
    lines = [[name, *spread(ears, reference)] for name, ears in found.items()]
    text = f"`{command}` at commit `{tables.commit(ROOT)}`; {len(gated)} clips.\n\n"
    tables.publish(text + tables.table(["ILD of", *HEAD], lines), None, options.write_to, NAME)
    return 0


def named(systems: Sequence[str]) -> list[tuple[str, Path]]:
    """UserError for what is no NAME=DIR, and for a name given twice."""
    found = [named_folder(text) for text in systems]
    names = [name for name, _ in found]
    for name in names:
        if names.count(name) > 1 or name == TRUTH:
            raise UserError(f"--system {name}=...: the name is taken, give it another one")
    return found


def heard(
    files: Mapping[str, Path], active: Mapping[str, np.ndarray], name: str
) -> list[tuple[np.ndarray, float]]:
    """Of each clip the ILD in dB of its active frames, (F,), and their mean IACC (nan: all silent)."""
    found = []
    for clip, path in tqdm(files.items(), desc=name, unit="clip"):
        audio, rate = read_whole(path)
        if audio.shape[0] != 2:
            raise UserError(f"{path}: has {audio.shape[0]} channels, expected 2 ears")
        ears = interaural.analyse(Sound(audio, rate).at(interaural.RATE_HZ))
        sounding = active[clip][: len(ears.silent)]
        ild, silent, iacc = (of[: len(sounding)][sounding] for of in (ears.ild_db, ears.silent, ears.iacc))
        found.append((ild, finite_mean(iacc[~silent])))
    return found


def spread(ears: Sequence[tuple[np.ndarray, float]], truth: Sequence[tuple[np.ndarray, float]]) -> list[str]:
    """The cells of a row. Frames count up to the shorter of sound and truth."""
    sums = np.array([_sums(ild, true[0], iacc) for (ild, iacc), true in zip(ears, truth, strict=True)])
    resampled = [_figures(sums[chosen]) for chosen in draws(len(sums), RESAMPLES, seed=0)]
    cells = []
    for value, again in zip(_figures(sums), np.array(resampled).T, strict=True):
        low, high = interval(again)
        cells.append(f"{value:.2f} [{low:.2f}, {high:.2f}]")
    return cells


def _sums(ild: np.ndarray, true: np.ndarray, iacc: float) -> tuple[float, ...]:
    count = min(len(ild), len(true))
    ild, true = ild[:count], true[:count]
    if count < 2:
        return (np.nan,) * 5 + (iacc,)
    return ild.mean(), ild.var(), (np.diff(ild) ** 2).mean(), ild @ true, true @ true, iacc


def _figures(sums: np.ndarray) -> list[float]:
    """(clips, 6) -> the columns of HEAD."""
    means, variances, jumps, crossed, squared, iacc = sums.T
    own, scale = finite_mean(means), finite_mean(squared)
    return [
        finite_mean((means - own) ** 2) ** 0.5, finite_mean(variances) ** 0.5, finite_mean(jumps) ** 0.5,
        finite_mean(crossed) / scale if scale else np.nan, finite_mean(iacc),
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
