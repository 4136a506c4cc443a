"""The table of the benchmark: systems against each other, kinds of clip, mirror tests, targets.

Legend of the figures: see `synth_benchmark`. Values carry 95 % bootstrap intervals over clips.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from bi_audio_dataset import media
from visaudio.data.dataset import Clip
from visaudio.evaluation import classifier as classifiers
from visaudio.evaluation.synth_benchmark import GROUPS, Cues, Figure, hear, score, summarise
from visaudio.evaluation.synth_outputs import sound_path

ROWS = {
    "truth": "the truth itself",
    "codec": "codec round trip of the truth (ceiling)",
    "model": "**model**",
    "mono": "model, mono copied to both ears",
    "shuffled": "model, conditions shuffled between clips (floor)",
    "exchanged": "truth of another clip (chance)",
}
# figure -> (heading, factor, digits)
COLUMNS = {
    "side": ("side correct %", 100, 1),
    "side_silent": ("silent there %", 100, 1),
    "r": ("ILD r", 1, 3),
    "r_moving": ("median r, moving", 1, 3),
    "ild_error_db": ("ILD error dB", 1, 2),
    "onset_f1": ("onset F1", 1, 3),
    "sound_class": ("class right %", 100, 1),
    "itd_gcc_us": ("ITD error us, GCC-PHAT", 1, 0),
    "itd_phase_us": ("ITD error us, 100-1500 Hz", 1, 0),
}


@dataclass(frozen=True)
class Target:
    """A figure of the model's gated row (or a mirror row) and the bound it is to reach."""

    name: str
    row: str
    figure: str
    bound: float
    at_least: bool = True


TARGETS = (
    Target("side correct", "model", "side", 0.98),
    Target("Pearson r of frame ILD", "model", "r", 0.92),
    Target("onset F1 within 50 ms", "model", "onset_f1", 0.85),
    Target("onset F1, shuffled / model", "shuffled_share", "onset_f1", 0.5, at_least=False),
    Target("sound class right", "model", "sound_class", 0.9),
    Target("mirror: r with frames flipped", "flipped", "r", -0.8, at_least=False),
    Target("mirror: r with the ears' noise swapped", "noise_swapped", "r", 0.8),
)


# -------------------- hearing


def hear_sounds(
    folder: Path,
    wanted: Sequence[tuple[str, str]],
    durations_s: Mapping[str, float],
    classifier: Path,
    workers: int,
    progress: Callable[[int], None],
) -> dict[tuple[str, str], Cues]:
    """(system, id) -> cues. `mono` is the model's sound, both ears averaged."""
    if workers < 2:
        _start_worker(classifier, threads=None)
        heard = {}
        for system, name in wanted:
            heard[system, name] = _hear(folder, system, name, durations_s[name])
            progress(1)
        return heard
    heard = {}
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_start_worker, initargs=(classifier, 1)
    ) as pool:
        jobs = {
            pool.submit(_hear, folder, system, name, durations_s[name]): (system, name)
            for system, name in wanted
        }
        for job in as_completed(jobs):
            heard[jobs[job]] = job.result()
            progress(1)
    return heard


_state: dict[str, classifiers.SoundClassifier] = {}


def _start_worker(path: Path, threads: int | None) -> None:
    if threads:
        import torch

        torch.set_num_threads(threads)
    _state["classifier"] = classifiers.load(path)


def _hear(folder: Path, system: str, name: str, duration_s: float) -> Cues:
    audio, rate = media.read_audio(sound_path(folder, "model" if system == "mono" else system, name))
    if system == "mono":
        audio = np.repeat(audio.mean(axis=0, keepdims=True), 2, axis=0)
    return hear(audio, rate, _state["classifier"].classify, duration_s)


# -------------------- the report


def report(
    clips: Mapping[str, Clip],
    groups: Mapping[str, Sequence[str]],
    heard: Mapping[tuple[str, str], Cues],
    partners: Mapping[str, str],
    mirror_ids: Sequence[str],
) -> dict[str, Any]:
    """All figures as plain values. groups: ids of each of GROUPS; partners: id -> the clip exchanged with,
    for the gated clips that the rows `shuffled` and `exchanged` are over.
    """

    def scores(row: str, ids: Sequence[str]) -> list:
        source = (lambda i: ("truth", partners[i])) if row == "exchanged" else (lambda i: (row, i))
        return [score(heard[source(i)], heard["truth", i], clips[i]) for i in ids]

    def against_model(row: str) -> dict[str, Figure]:
        return summarise([score(heard[row, i], heard["model", i], clips[i]) for i in mirror_ids])

    classes = sorted({clips[i].sources[0].class_name for i in groups["gated"]})
    of_class = {c: [i for i in groups["gated"] if clips[i].sources[0].class_name == c] for c in classes}
    exchanged = [i for i in groups["gated"] if i in partners]
    ids_of = {row: exchanged if row in ("shuffled", "exchanged") else groups["gated"] for row in ROWS}
    rows = {row: summarise(scores(row, ids)) for row, ids in ids_of.items()}
    kinds = {row: {g: summarise(scores(row, ids)) for g, ids in groups.items()} for row in ("model", "codec")}
    by_class = {
        row: {c: summarise(scores(row, ids)) for c, ids in of_class.items()} for row in ("model", "codec")
    }
    mirror = {row: against_model(row) for row in ("flipped", "noise_swapped")}
    return _plain(
        {
            "clips": {"all": len(clips), **{g: len(ids) for g, ids in groups.items()}},
            "clips_of_row": {row: len(ids) for row, ids in ids_of.items()},
            "clips_of_class": {c: len(ids) for c, ids in of_class.items()},
            "rows": rows,
            "kinds": kinds,
            "by_class": by_class,
            "mirror": {"clips": len(mirror_ids), **mirror},
            "targets": [_judge(target, rows, mirror) for target in TARGETS],
        }
    )


def _judge(target: Target, rows: Mapping, mirror: Mapping) -> dict[str, Any]:
    if target.row == "shuffled_share":
        of = {row: rows[row].get("onset_f1", Figure(math.nan, 0, 0)).value for row in ("shuffled", "model")}
        value = of["shuffled"] / of["model"] if of["model"] else math.nan
    else:
        figures = {**rows, **mirror}[target.row]
        value = figures[target.figure].value if figures else math.nan
    reached = value >= target.bound if target.at_least else value <= target.bound
    return {
        "name": target.name,
        "bound": target.bound,
        "at_least": target.at_least,
        "value": value,
        "reached": bool(reached),
    }


def _plain(value: Any) -> Any:
    """Figures as [value, low, high], nan as None: what JSON holds."""
    if isinstance(value, Figure):
        return [_plain(value.value), _plain(value.low), _plain(value.high)]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def markdown(figures: Mapping[str, Any]) -> str:
    """The tables of a report; intervals in brackets."""
    clips, names = figures["clips"], list(COLUMNS)
    lines = ["| target | bound | reached |", "|---|---|---|"]
    for target in figures["targets"]:
        value = "-" if target["value"] is None else f"{target['value']:.3f}"
        bound = f"{'at least' if target['at_least'] else 'at most'} {target['bound']:g}"
        lines.append(f"| {target['name']} | {bound} | {value} {'yes' if target['reached'] else '**no**'} |")
    lines += ["", f"{clips['gated']} of {clips['all']} clips: {GROUPS['gated']}.", ""]
    counts = figures["clips_of_row"]
    systems = {f"{ROWS[row]} ({counts[row]} clips)": values for row, values in figures["rows"].items()}
    lines += _table("system", systems, names)
    lines += [
        "",
        "Kinds of clip (the model; then the codec's round trip of the same clips):",
        "",
    ]
    kinds = {}
    for row, of_group in figures["kinds"].items():
        for group, values in of_group.items():
            kinds[f"{row}: {GROUPS[group]} ({clips[group]} clips)"] = values
    lines += _table("clips", kinds, names)
    lines += ["", "By class (gated clips):", ""]
    by_class = {}
    for row, of_class in figures["by_class"].items():
        for name, values in of_class.items():
            by_class[f"{row}: {name} ({figures['clips_of_class'][name]})"] = values
    lines += _table("class", by_class, ["side", "r", "ild_error_db", "onset_f1", "sound_class"])
    mirror = figures["mirror"]
    lines += ["", f"ILD of the output against the model's own ({mirror['clips']} gated clips):", ""]
    labels = {"flipped": "frames mirrored, same noise", "noise_swapped": "ears' noise swapped, same frames"}
    lines += _table("change", {labels[row]: mirror[row] for row in labels}, ["r", "r_moving"])
    return "\n".join(lines) + "\n"


def _table(head: str, rows: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    lines = [f"| {head} | " + " | ".join(COLUMNS[name][0] for name in names) + " |"]
    lines.append("|---" * (len(names) + 1) + "|")
    for label, values in rows.items():
        cells = [_cell(values.get(name), *COLUMNS[name][1:]) for name in names]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return lines


def _cell(figure: Sequence[float | None] | None, factor: float, digits: int) -> str:
    if figure is None or figure[0] is None:
        return "-"
    value, *interval = figure
    text = f"{factor * value:.{digits}f}"
    if any(bound is None for bound in interval):
        return text
    return text + " [" + ", ".join(f"{factor * bound:.{digits}f}" for bound in interval) + "]"
