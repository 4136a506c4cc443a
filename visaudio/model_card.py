"""The card of a model folder, which the Hub shows: header, use, parts, limits, licence, data, results."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bi_audio_dataset.schema import UserError
from visaudio import licences

if TYPE_CHECKING:
    from visaudio.model_folder import ModelFolder

TAGS = ["video-to-audio", "binaural-audio", "spatial-audio", "flow-matching"]
ARXIV = "2512.03036"
HERE = "path/to/this/folder"  # until the card goes to a repository: then that repository's name
#: Of the figures that benchmarks/synth_quality.py writes: what they are called, and whether more is better.
FIGURES = {
    "side": ("side correct", "up"),
    "r": ("Pearson r of frame ILD", "up"),
    "r_moving": ("median r within moving clips", "up"),
    "ild_error_db": ("ILD error, dB", "down"),
    "onset_f1": ("onset F1 within 50 ms", "up"),
    "sound_class": ("sound class right", "up"),
    "itd_gcc_us": ("ITD error by GCC-PHAT, us", "down"),
    "itd_phase_us": ("ITD error by phase, us", "down"),
}


def model_card(model: ModelFolder) -> str:
    """README.md of a model folder, from what its config.json says and nothing else."""
    info, preset = model.info, model.preset
    body = [
        f"# ViSAudio, preset `{preset.name}`",
        "",
        f"Binaural sound (two ears) from silent video, by the ViSAudio method (arXiv {ARXIV}).",
        "",
        *_use(),
        *_parts(model),
        "",
        f"Sound is made at {preset.sequence.sample_rate} Hz per ear; trained on "
        f"{preset.sequence.duration_s:g} s clips, longer videos run in overlapping windows.",
        "",
        "## Limits",
        "",
        info.limits or "Not stated.",
        "",
        *_licence(model),
    ]
    if info.datasets or info.training:
        body += ["## Training", ""]
        body += [f"Data: {', '.join(info.datasets)}.", ""] if info.datasets else []
        body += [*_bullets(info.training), ""] if info.training else []
    if info.results:
        body += _results(info.results)
    return "\n".join([*_header(model), *body])


def for_repository(card: str, repository: str, revision: str | None = None) -> str:
    """The card with commands that name the repository it goes to."""
    card = card.replace(f'"{HERE}"', f'"{repository}"' + (f', revision="{revision}"' if revision else ""))
    return card.replace(HERE, repository + (f" --revision {revision}" if revision else ""))


def _header(model: ModelFolder) -> list[str]:
    """YAML by the Hub's own classes, so that it is what the Hub reads."""
    from huggingface_hub import EvalResult, ModelCardData

    info = model.info
    links = [
        f"https://huggingface.co/{one.repository}" for found in model.references.values() for one in found
    ]
    data: dict[str, Any] = {
        **licences.for_card(model.licence, links[0] if links else ""),
        "library_name": "visaudio",
        "pipeline_tag": "any-to-any",
        "tags": TAGS,
    }
    if info.datasets:
        data["datasets"] = list(info.datasets)
    if info.results:
        data["model_name"] = f"ViSAudio {model.preset.name}"
        dataset = info.results["dataset"]
        data["eval_results"] = [
            EvalResult(
                task_type="any-to-any",
                dataset_type=dataset,
                dataset_name=dataset,
                metric_type=name,
                metric_name=FIGURES.get(name, (name,))[0],
                metric_value=values[0],
            )
            for name, values in info.results["figures"].items()
        ]
    return ["---", ModelCardData(**data).to_yaml().strip(), "---", ""]


def _use() -> list[str]:
    return [
        "```python",
        "from visaudio import ViSAudio",
        "",
        f'pipe = ViSAudio.from_pretrained("{HERE}")',
        'pipe("clip.mp4").save("clip.flac")  # or .mp4: the picture with this sound',
        "```",
        "",
        "```bash",
        f"visaudio-sample --video clip.mp4 --variant {HERE}",
        "```",
        "",
    ]


def _parts(model: ModelFolder) -> list[str]:
    lines = ["| part | parameters | weights |", "|---|---|---|"]
    for part in (*model.stored, *model.references):
        count = model.parameters.get(part)
        where = "here"
        if part in model.references:
            where = "; ".join(
                f"[{one.repository}](https://huggingface.co/{one.repository}/tree/{one.revision}), "
                f"commit `{one.revision[:8]}`, {', '.join(f'`{path}`' for path in one.files)} ({one.licence})"
                for one in model.references[part]
            )
        lines.append(f"| {part} | {'' if count is None else format(count, ',')} | {where} |")
    return lines


def _licence(model: ModelFolder) -> list[str]:
    lines = [
        "## Provenance and licence",
        "",
        f"Licence: {model.licence}. {model.info.provenance}".rstrip(),
        "",
    ]
    if model.references:
        lines += [
            f"Stored here: {licences.combined([model.info.licence])}. Weights of other repositories "
            "are fetched from there at the commits above and held against their checksums; each has its own "
            "licence:",
            "",
            *(
                f"- {part}, {one.repository}: {one.licence}"
                for part, found in model.references.items()
                for one in found
            ),
            "",
        ]
    if "cc-by-nc" in model.licence:
        lines += ["No commercial use.", ""]
    return lines


def _bullets(values: Mapping[str, Any], indent: str = "") -> list[str]:
    lines = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}- {key}:", *_bullets(value, indent + "  ")]
        else:
            lines.append(f"{indent}- {key}: {_number(value)}")
    return lines


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# -------------------- results


def _results(results: Mapping[str, Any]) -> list[str]:
    lines = [
        "## Results",
        "",
        f"On {results['dataset']}" + (f", {results['clips']} clips" if "clips" in results else ""),
    ]
    if results.get("command"):
        lines[-1] += f", by `{results['command']}`"
    if results.get("commit"):
        lines[-1] += f" at commit `{results['commit']}`"
    lines[-1] += "."
    lines += ["", "| figure | value | 95 % interval |", "|---|---|---|"]
    for name, (value, *interval) in results["figures"].items():
        title, better = FIGURES.get(name, (name, ""))
        arrow = {"up": " (more is better)", "down": " (less is better)"}.get(better, "")
        spread = f"{_number(interval[0])} to {_number(interval[1])}" if interval else ""
        lines.append(f"| {title}{arrow} | {_number(value)} | {spread} |")
    return [*lines, ""]


def read_results(path: Path, dataset: str, folder: Path | None = None) -> dict[str, Any]:
    """What an evaluation wrote, as ModelInfo.results: dataset, clips, command, commit, figures.

    A report.json of benchmarks/synth_quality.py (its row "model"), or a mapping of names to numbers. dataset:
    what it was measured on, in words or as a Hub name. folder: a report says which weights it is of; where
    they are not this folder's, that is a UserError, as is a file without figures.
    """
    try:
        said = json.loads(path.read_text())
        made = dict(said.get("made", {}))
        rows = said["rows"]["model"] if "rows" in said else {k: v for k, v in said.items() if k != "made"}
        figures = {name: _figure(value) for name, value in rows.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: expected a report.json of benchmarks/synth_quality.py, or names and numbers as JSON "
            f"({type(error).__name__}: {error})"
        ) from error
    figures = {name: values for name, values in figures.items() if values is not None}
    if not figures:
        raise UserError(f"{path}: holds no figure")
    if folder is not None and (digest := made.get("weights_sha256")) and digest != weights_digest(folder):
        raise UserError(
            f"{path}: is a report of other weights ({digest}) than {folder}'s ({weights_digest(folder)})"
        )
    results = {"dataset": dataset, "figures": figures}
    if "rows" in said and "clips_of_row" in said:
        results["clips"] = said["clips_of_row"]["model"]
    return {**results, **{key: str(made[key]) for key in ("command", "commit") if key in made}}


def _figure(value: Any) -> list[float] | None:
    """[value] or [value, low, high]; None for what was not measured."""
    values = list(value) if isinstance(value, list) else [value]
    if any(isinstance(one, bool) or not isinstance(one, (int, float, type(None))) for one in values):
        raise TypeError(f"{value!r} is no number")
    if not values or values[0] is None or not math.isfinite(values[0]):
        return None
    good = len(values) == 3 and all(one is not None and math.isfinite(one) for one in values)
    return [float(one) for one in (values if good else values[:1])]


def weights_digest(folder: Path) -> str:
    """Which model a report is of, whatever its card says: 16 digits over its weights and sizes."""
    text = (folder / "config.json").read_bytes()
    config = json.loads(text)
    if config.get("format_version") == 1:
        files = sorted([*folder.glob("*.safetensors"), folder / "config.json"])
        return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    about = {key: config.get(key) for key in ("preset", "sampling", "sha256", "references")}
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
