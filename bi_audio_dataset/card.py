"""The dataset card: README.md with the YAML that the Hub and `datasets` read, figures in words, and plots.

A published repository holds up to three configurations, each a folder of Parquet files named by split:

    data/        default    the clips
    synth/data/  synth      a whole dataset of its own, of procedural scenes (`synth --output DIR/synth`);
                            where the clips themselves are BiAudio-Synth, the same files as default
    features/    features   what the frozen encoders gave, a row a clip, by id; written by feature extraction

The card names the files of each, so that `load_dataset(DIR, "synth")` finds them and nothing else.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bi_audio_dataset import card_plots
from bi_audio_dataset.card_plots import ASSETS, Plot
from bi_audio_dataset.figures import IN_VIEW, LATERAL_EDGES_DEG, MEASURES, OUT_OF_VIEW, Figures
from bi_audio_dataset.schema import (
    BENCHMARK_CLIPS,
    CONFIGS,
    SCHEMA_VERSION,
    SPLITS,
    SYNTH_NAME,
    UserError,
    is_benchmark_id,
)

#: SPDX (lower case) -> the Hub's own word for it; what is not here is "other" in the YAML and named below it.
HUB_LICENCES = {name: name for name in (
    "apache-2.0", "mit", "cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0",
    "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-3.0",
    "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "pddl", "odbl", "unknown",
)}  # fmt: skip
SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"))


@dataclass(frozen=True)
class Config:
    """A configuration: where its files lie below the dataset's folder; split -> (rows, bytes of files)."""

    name: str
    folder: str
    splits: Mapping[str, tuple[int, int]]


def find_configs(folder: Path, figures: Figures | None = None, data: Path | None = None) -> list[Config]:
    """The configurations of a dataset folder, from the Parquet files' names and footers.

    data: where the clips lie, if not yet in folder/data. figures: of the clips; where all of them are
    BiAudio-Synth and there is no folder `synth`, they are that configuration as well.
    UserError for a Parquet file whose name begins with no split, or that cannot be read.
    """
    found = {}
    for name, below in CONFIGS.items():
        place = data if name == "default" and data is not None else Path(folder) / below
        splits = _splits(place)
        if splits:
            found[name] = Config(name, below, splits)
    synthetic = figures is not None and {source for source, _ in figures.origins} == {SYNTH_NAME}
    if synthetic and "synth" not in found and "default" in found:
        found["synth"] = Config("synth", CONFIGS["default"], found["default"].splits)
    if "benchmark" not in found and "default" in found and _all_benchmark(found["default"], folder, data):
        found["benchmark"] = Config("benchmark", CONFIGS["default"], found["default"].splits)
    return [found[name] for name in CONFIGS if name in found]


def _all_benchmark(config: Config, folder: Path, data: Path | None) -> bool:
    """Whether the set's own clips are the BiAudio-Synth benchmark, all of it and nothing else."""
    import pyarrow.parquet as pq

    if sum(rows for rows, _ in config.splits.values()) != BENCHMARK_CLIPS:
        return False
    place = Path(folder) / config.folder if data is None else data
    tables = (pq.read_table(path, columns=["id"]) for path in place.glob("*.parquet"))
    return all(is_benchmark_id(name) for table in tables for name in table["id"].to_pylist())


def _splits(place: Path) -> dict[str, tuple[int, int]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sizes: dict[str, tuple[int, int]] = {}
    for path in sorted(place.glob("*.parquet")):
        split = path.name.partition("-")[0]
        if split not in SPLITS:
            raise UserError(
                f"'{path}': expected a name that begins with a split and '-' ({', '.join(SPLITS)}): rename it"
            )
        try:
            rows = pq.read_metadata(path).num_rows
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"'{path}' is not a whole Parquet file ({_one_line(error)})") from None
        before = sizes.get(split, (0, 0))
        sizes[split] = before[0] + rows, before[1] + path.stat().st_size
    return {split: sizes[split] for split in SPLITS if split in sizes}


def title_of(record: Mapping[str, Any] | None, figures: Figures) -> str:
    """record: build.json, None where there is none."""
    if record is None:
        return f"BiAudio: {', '.join(sorted({source for source, _ in figures.origins}))}"
    return f"BiAudio: {record['source']['name']}"


def write(
    beside: Path,
    title: str,
    figures: Figures,
    settings: Mapping[str, Any] | None,
    selection: Sequence[str],
    configs: Sequence[Config],
) -> None:
    """README.md and assets/ into the folder `beside`, from where `install` takes them."""
    beside.mkdir(parents=True, exist_ok=True)
    try:
        plots = card_plots.draw(figures, beside)
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        plots = None
    text = card(title, figures, settings, selection, configs, plots)
    (beside / "README.md").write_text(text, encoding="utf-8")


def install(beside: Path, folder: Path) -> None:
    """Move what `write` has written into the dataset's folder, file by file, the card last; plots of an older
    card that the new one does not show go. Other files in assets/ stay. May be repeated after a kill."""
    if not (beside / "README.md").exists():
        return
    for name in card_plots.FILES:
        if (beside / name).exists():
            (folder / ASSETS).mkdir(exist_ok=True)
            os.replace(beside / name, folder / name)
    text = (beside / "README.md").read_text(encoding="utf-8")
    for name in card_plots.FILES:
        if name not in text:
            (folder / name).unlink(missing_ok=True)
    os.replace(beside / "README.md", folder / "README.md")


def card(
    title: str,
    figures: Figures,
    settings: Mapping[str, Any] | None = None,
    selection: Sequence[str] = (),
    configs: Sequence[Config] = (),
    plots: Sequence[Plot] | None = (),
) -> str:
    """README.md as text.

    settings: build.json, None where there is none; selection: lines that say what was left out and why;
    plots: what lies below assets/, None where they could not be drawn for want of matplotlib.
    """
    splits = [split for split in SPLITS if figures.clips[split]]
    lines = [*_head(title, figures, configs), "", f"# {title}", "", *_introduction(splits, configs), ""]
    lines += _counts(figures, splits)
    lines += _classes(figures, splits)
    lines += _distributions(figures)
    if plots is None:
        lines += [
            "No plots: matplotlib was not installed where this card was written. `pip install matplotlib`,",
            "then `python -m bi_audio_dataset card FOLDER` draws them.",
            "",
        ]
    lines += [line for plot in plots or () for line in (f"![{plot.words}]({plot.path})", "")]
    lines += [f"Head-related impulse responses: {', '.join(sorted(figures.hrir_sets)) or 'none'}.", ""]
    if selection:
        lines += ["## Selection", "", *selection, ""]
    if settings is not None:
        lines += ["## Settings", "", "`build.json`:", "", "```json"]
        lines += [json.dumps(settings, indent=1, sort_keys=True), "```", ""]
    return "\n".join(lines)


def _head(title: str, figures: Figures, configs: Sequence[Config]) -> list[str]:
    """The YAML. `dataset_info` makes `load_dataset` refuse a copy that lacks rows."""
    clips = sum(figures.clips.values())
    size = next((words for below, words in SIZES if clips < below), "n>1M")
    lines = ["---", f"pretty_name: {_quoted(title)}", *_licence_yaml(figures), "language:", "- en"]
    lines += ["task_categories:", "- text-to-audio", "- other", "size_categories:", f"- {size}"]
    lines += ["tags:", "- binaural", "- spatial-audio", "- video-to-audio"]
    if configs:
        lines += ["dataset_info:"]
        for config in configs:
            lines += [f"- config_name: {config.name}", "  splits:"]
            for split, (rows, size_bytes) in config.splits.items():
                lines += [f"  - name: {split}", f"    num_bytes: {size_bytes}", f"    num_examples: {rows}"]
        lines += ["configs:"]
    for config in configs:
        lines += [f"- config_name: {config.name}"]
        lines += ["  default: true"] if config.name == "default" else []
        lines += ["  data_files:"]
        for split in config.splits:
            lines += [f"  - split: {split}", f"    path: {config.folder}/{split}-*"]
    return [*lines, "---"]


def _licence_yaml(figures: Figures) -> list[str]:
    names = sorted(figures.licences)
    words = sorted({HUB_LICENCES.get(_spdx(name), "other") for name in names})
    lines = ["license:", *[f"- {word}" for word in words]] if len(words) > 1 else []
    lines = lines or [f"license: {words[0] if words else 'unknown'}"]
    others = [name for name in names if _spdx(name) not in HUB_LICENCES]
    return lines + ([f"license_name: {_quoted(', '.join(others))}"] if others else [])


def _introduction(splits: Sequence[str], configs: Sequence[Config]) -> list[str]:
    first = splits[0] if splits else "train"
    lines = [
        "Clips of a perspective view cut out of 360-degree video, with the binaural sound of that direction.",
        "Built by `bi_audio_dataset`; every row carries its own licence and provenance.",
        "",
        "```python",
        "import datasets",
        f'rows = datasets.load_dataset("PATH_OR_REPOSITORY", split="{first}")   # or streaming=True',
        'flac = next(iter(rows))["audio"]["bytes"]   # media come as bytes; with torchcodec installed:',
        'rows = rows.cast_column("audio", datasets.Audio()).cast_column("video", datasets.Video())',
    ]
    for name, splits in ((config.name, config.splits) for config in configs if config.name != "default"):
        place = f'"PATH_OR_REPOSITORY", "{name}", split="{next(iter(splits))}"'
        lines.append(f"{name} = datasets.load_dataset({place})")
    return [
        *lines,
        "```",
        "",
        f"Schema version {SCHEMA_VERSION}. Angles are in degrees in the camera's frame: azimuth positive to",
        "the left, elevation positive up, lateral = asin(sin azimuth cos elevation), positive left. Those of",
        "`direction` (of most energy) and `camera` are in the recording's frame. Audio channel 0 is the",
        "left ear.",
    ]


def _counts(figures: Figures, splits: Sequence[str]) -> list[str]:
    lines = ["## What it holds", "", "| split | clips | hours |", "|---|---|---|"]
    for split in splits:
        lines.append(f"| {split} | {figures.clips[split]} | {_hours(figures.split_seconds[split])} |")
    total = sum(figures.clips.values())
    lines += ["", f"Total {total} clips, {_hours(figures.seconds)} h.", ""]
    lines += ["| source | licence | clips | hours |", "|---|---|---|---|"]
    for source, licence in sorted(figures.origins):
        key = source, licence
        hours = _hours(figures.origin_seconds[key])
        lines.append(f"| {_cell(source)} | {_cell(licence)} | {figures.origins[key]} | {hours} |")
    return [*lines, ""]


def _classes(figures: Figures, splits: Sequence[str]) -> list[str]:
    names = sorted({name for name, _ in figures.classes})
    if not names:
        return ["No clip has ground truth of its sources (real recordings have none).", ""]
    lines = ["| class | " + " | ".join(splits) + " |", "|---" * (len(splits) + 1) + "|"]
    for name in names:
        cells = " | ".join(str(figures.classes[name, split]) for split in splits)
        lines.append(f"| {_cell(name)} | {cells} |")
    counts = ", ".join(f"{figures.sources[n]} with {n}" for n in sorted(figures.sources))
    lines += ["", f"Clips by number of sounding objects: {counts}."]
    return [*lines, f"Clips with an object never on view: {figures.off_screen}.", ""]


def _distributions(figures: Figures) -> list[str]:
    lines = [
        "## Distributions",
        "",
        "| of a clip | measured | 5 % | median | 95 % |",
        "|---|---|---|---|---|",
    ]
    for measure in MEASURES:
        values = np.asarray(figures.values[measure.name])
        cells = [f"{value:.3g}" for value in np.percentile(values, (5, 50, 95))] if len(values) else ["-"] * 3
        lines.append(f"| {measure.words} | {len(values)} | {' | '.join(cells)} |")
    both = sum(figures.lateral.values())
    total = int(both.sum())
    if not total:
        return [*lines, ""]
    lines += ["", "| lateral angle of sounding objects | in view, % | out of view, % |", "|---|---|---|"]
    # thirds of the bins: more than 30 degrees to one side, or within
    for words, low, high in (
        ("left of +30", 30, 90),
        ("within 30 of ahead or behind", -30, 30),
        ("right of -30", -90, -30),
    ):
        chosen = (LATERAL_EDGES_DEG[:-1] >= low) & (LATERAL_EDGES_DEG[1:] <= high)
        shares = [figures.lateral[name][chosen].sum() / total * 100 for name in (IN_VIEW, OUT_OF_VIEW)]
        lines.append(f"| {words} | {shares[0]:.1f} | {shares[1]:.1f} |")
    return [*lines, ""]


def _spdx(licence: str) -> str:
    return re.sub(r"[\s_-]+", "-", licence.strip().lower())


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.2f}" if seconds >= 36 else f"{seconds / 3600:.4f}"


def _cell(text: str) -> str:
    # what a source calls itself must not break the table
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
