"""The card of a model folder, which the Hub shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visaudio.hub import Components


def model_card(components: Components, parts: Sequence[str]) -> str:
    """README.md of a model folder: what it is, how to use it, where it comes from, its limits."""
    info, preset = components.info, components.preset
    parameters = {part: sum(p.numel() for p in getattr(components, part).parameters()) for part in parts}
    lines = [
        "---",
        f"license: {info.licence}",
        "library_name: visaudio",
        "pipeline_tag: any-to-any",
        "tags: [video-to-audio, binaural-audio, spatial-audio, flow-matching]",
        "---",
        "",
        f"# ViSAudio, preset `{preset.name}`",
        "",
        "Binaural sound (two ears) from silent video, by the ViSAudio method (arXiv 2512.03036).",
        "",
        "```python",
        "from visaudio.pipeline import ViSAudioPipeline",
        "",
        'pipe = ViSAudioPipeline.from_pretrained("<this folder or repository>")',
        'pipe("clip.mp4").save("clip.flac")',
        "```",
        "",
        "| part | parameters |",
        "|---|---|",
        *(f"| {part} | {count:,} |" for part, count in parameters.items()),
        "",
        f"Sound is made at {preset.sequence.sample_rate} Hz per ear; trained on "
        f"{preset.sequence.duration_s:g} s clips, longer videos run in overlapping windows.",
        "",
        "## Limits",
        "",
        info.limits or "Not stated.",
        "",
        "## Provenance and licence",
        "",
        f"Licence: {info.licence}. {info.provenance}".rstrip(),
        "",
    ]
    if info.training:
        lines += ["## Training", "", *_bullets(info.training), ""]
    return "\n".join(lines)


def _bullets(values: Mapping[str, Any], indent: str = "") -> list[str]:
    lines = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}- {key}:", *_bullets(value, indent + "  ")]
        else:
            lines.append(
                f"{indent}- {key}: {value:.4g}" if isinstance(value, float) else f"{indent}- {key}: {value}"
            )
    return lines
