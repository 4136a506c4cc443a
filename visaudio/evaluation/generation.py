"""A model's sounds for the clips of a dataset, each from its video alone: stored, resumable, shared out.

    OUTPUT/clips/ID.mp4, ID.flac, ID.json       the rows' media and truth
    OUTPUT/conditions/ID.pt                     what the network is told
    OUTPUT/sounds/model/ID.flac, ID.json        the sounds, and how each was made
    OUTPUT/sounds/model.made.json               the model and settings they are all of

The sounds are made by synth_outputs.py, as those of the quality table are. Under accelerate or torchrun every
process makes its share of the clips; all must see OUTPUT.
"""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bi_audio_dataset.schema import UserError
from visaudio.evaluation import references
from visaudio.evaluation.pairs import Reference
from visaudio.evaluation.truth_files import read_truth
from visaudio.stored import read_object, write_whole

if TYPE_CHECKING:
    from visaudio.components import Components

SYSTEM = "model"
TIMEOUT = timedelta(days=7)  # the first process to be done waits for the last
PROMPTS = ("none", "caption")
LENSES = ("unknown", "known")


@dataclass(frozen=True)
class Generation:
    """What to generate with. num_steps, cfg_strength: None takes the model's own. prompt: "caption" tells the
    network the row's caption; hfov: "known" tells it the row's lens. batch: clips sampled together."""

    model: str
    seed: int = 0
    num_steps: int | None = None
    cfg_strength: float | None = None
    prompt: str = "none"
    hfov: str = "unknown"
    batch: int = 4
    workers: int = 1
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.prompt not in PROMPTS:
            raise UserError(f"prompt must be one of {', '.join(PROMPTS)}, got '{self.prompt}'")
        if self.hfov not in LENSES:
            raise UserError(f"hfov must be one of {', '.join(LENSES)}, got '{self.hfov}'")
        if self.num_steps is not None and self.num_steps < 1:
            raise UserError(f"num_steps must be at least 1, got {self.num_steps}")
        if self.cfg_strength is not None and not math.isfinite(self.cfg_strength):
            raise UserError(f"cfg_strength must be a finite number, got {self.cfg_strength}")


def generate(
    dataset: str | Path,
    output: Path,
    settings: Generation,
    *,
    split: str = "test",
    config: str = "default",
    limit: int | None = None,
    progress: bool = True,
) -> tuple[Path, dict[str, Any]] | None:
    """Makes what is missing; (folder of the sounds, how they were made), or None in a process other than the
    first of several. limit: the first so many clips by name. UserError for what cannot be done."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return _generate(dataset, output, settings, split, config, limit, progress, None)
    from visaudio.data.features import processes

    return _generate(dataset, output, settings, split, config, limit, progress, processes(timeout=TIMEOUT))


def _generate(dataset, output: Path, settings: Generation, split, config, limit, progress, state):
    def prepare() -> tuple[dict[str, Reference], dict[str, Any]]:
        identity = _identity(settings)
        rows = references.open_rows(dataset, split, config)
        _claim(output, identity)
        ids = sorted(rows.ids)[:limit]
        return references.write_out(rows, ids, output, videos=True, progress=progress), identity

    if state is None:
        found, identity = prepare()
    else:
        from visaudio.data.features import on_main

        found, identity = on_main(state, prepare)
        settings = replace(settings, device=str(state.device))
    _make_sounds(found, output, settings, progress, state)
    if state is not None:
        state.wait_for_everyone()
        if not state.is_main_process:
            return None
    return output / "sounds" / SYSTEM, identity


def _make_sounds(
    found: Mapping[str, Reference], output: Path, settings: Generation, progress: bool, state
) -> None:
    from tqdm import tqdm

    from visaudio.evaluation import synth_outputs

    truths = {clip: read_truth(reference.truth) for clip, reference in found.items()}
    lenses = {clip: t.hfov_deg for clip, t in truths.items() if not math.isnan(t.hfov_deg)}
    work = synth_outputs.Work(
        output,
        functools.partial(load_model, settings),
        settings.seed,
        {clip: truth.duration_s for clip, truth in truths.items()},
        {clip: truth.caption for clip, truth in truths.items()} if settings.prompt == "caption" else {},
        lenses if settings.hfov == "known" else {},
    )
    jobs = [j for j in synth_outputs.plan_jobs(list(found), {}, (), settings.batch) if j.system == SYSTEM]
    if state is not None:
        jobs = jobs[state.process_index :: state.num_processes]
        progress = progress and state.is_main_process
    count = sum(len(job.ids) for job in jobs)
    with tqdm(total=count, desc="sounds", unit="clip", disable=not progress, smoothing=0.1) as bar:
        synth_outputs.run_jobs(jobs, work, settings.workers, bar.update)


def load_model(settings: Generation) -> Components:
    """A folder, a packaged name, a variant or a Hub repository, with its own sampling where none is given."""
    from visaudio.pipeline import ViSAudioPipeline

    components = ViSAudioPipeline.from_pretrained(settings.model, device=settings.device).components
    given = {"num_steps": settings.num_steps, "cfg_strength": settings.cfg_strength}
    components.sampling = replace(
        components.sampling, **{name: value for name, value in given.items() if value is not None}
    )
    return components


def _identity(settings: Generation) -> dict[str, Any]:
    """What the sounds depend on besides the clips. UserError if there is no such model."""
    from visaudio import hub, variants
    from visaudio.model_card import weights_digest

    if settings.model in variants.VARIANTS:
        digest = settings.model
    else:
        digest = weights_digest(hub.find_model(settings.model))
    names = ("seed", "num_steps", "cfg_strength", "prompt", "hfov")
    about = {name: getattr(settings, name) for name in names}
    return {"model": Path(settings.model).name, "weights_sha256": digest, **about}


def _claim(output: Path, identity: Mapping[str, Any]) -> None:
    """UserError if the sounds in the folder are of another model, seed or setting."""
    path = output / "sounds" / f"{SYSTEM}.made.json"
    advice = "give another --output, or remove OUTPUT/sounds, if its sounds are to be made again"
    old = read_object(path, advice)
    if old is not None:
        other = [f"{name} {old.get(name)!r}" for name in identity if old.get(name) != identity[name]]
        if other:
            raise UserError(f"{output} holds sounds made with {', '.join(other)}: give another --output")
        return
    write_whole(path, (json.dumps(dict(identity), indent=1) + "\n").encode())
