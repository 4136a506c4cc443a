"""The BiAudio-Synth benchmark's tables: all clips, then each kind of clip, with methods' differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from visaudio.evaluation.runner import Options, score
from visaudio.evaluation.seeds import SeedTable, markdown
from visaudio.evaluation.synth_benchmark import GROUPS

MEASURES = ("truth", "space", "onsets", "plausibility", "fsad")
# of all clips; then of the kinds of clip that the truth tells apart
OF_ALL = ("fsad", "plausibility", "plausibility_side", "stft_distance", "envelope_distance", "onset_f1")
OF_KINDS = (
    "truth_side", "truth_r", "truth_r_moving", "truth_ild_error_db", "truth_itd_phase_us", "truth_onset_f1",
    "truth_sound_class",
)  # fmt: skip


def benchmark_table(
    systems: Mapping[str, Sequence[Path]],
    dataset: str | Path,
    output: Path,
    titles: Mapping[str, str],
    before: Mapping[str, str] | None = None,
    workers: int = 1,
    limit: int | None = None,
) -> str:
    """Markdown. systems: method -> folders of sounds, one for each seed; titles: of methods, in words;
    before: method -> the one it is held against. output: gets the cache."""
    folders = {f"{name}-{seed}": folder for name, of in systems.items() for seed, folder in enumerate(of)}
    options = Options(measures=MEASURES, workers=workers, limit=limit)
    scored = score(folders, dataset, output, options, say=print)
    methods = {name: [f"{name}-{seed}" for seed in range(len(of))] for name, of in systems.items()}
    kinds = {name: {c.id for c in scored.clips if name in c.reference.groups} for name in GROUPS}
    parts = []
    for name, among in {"": None, **kinds}.items():
        if among is not None and not among:
            continue
        found = SeedTable(scored.figures, methods, among)
        columns = [figure for figure in (OF_KINDS if name else OF_ALL) if figure in found.figures]
        what = f"{GROUPS[name]} ({len(among)} clips)" if among else f"All {len(scored.clips)} clips"
        parts.append(f"{what}:\n\n{markdown(found, titles, columns, before or {})}")
    return "\n".join(parts)
