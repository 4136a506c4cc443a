#!/usr/bin/env python
"""The paper's ablation in miniature, on the BiAudio-Synth benchmark: what each part of the method adds.

    python train.py --stages data,codec,clip,synchformer,features
    python -m bi_audio_dataset synth --benchmark --output data/benchmark
    python benchmarks/ablation.py --run runs/tiny --dataset data/benchmark --output runs/ablation

Codec, encoders and features are the run's. A mono network is trained on them once (the trunk: what MMAudio
is to the paper); then every variant starts from it and is trained for the same time, once for each seed. Each
variant is the one before it with one thing more; the two-stage ones put the mono variant's sounds into space,
the learned one by a head that is trained for the same time too. All sounds are made from the MP4 files alone,
with one fixed noise for each clip; a clip that a system lacks is an error, silence counts as wrong.

The same time is a number of steps for each variant: as many as fit into --minutes at the seconds a step that
one thread takes with nothing else running (measured first, one variant after the other), whatever the
machine does later.

Everything is kept under --output: an interrupted command goes on where it stopped. --processes trainings run
at once, of one thread each; sampling takes about a second of a core for a clip and a training.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from bi_audio_dataset.schema import UserError
from visaudio import tables
from visaudio.cli.benchmark_scoring import add_scoring_options, clips_of, published_of
from visaudio.cli.common import Parser, guard, positive, positive_int
from visaudio.evaluation.baselines.tasks import Task, do
from visaudio.evaluation.benchmark_table import benchmark_table
from visaudio.stored import write_whole

ROOT = Path(__file__).resolve().parents[1]
TRUNK = "trunk"
DONE = ("data", "codec", "clip", "synchformer", "features")
MONO = "configs/ablation-mono-copied.yaml"
NO_MIRROR = ("flow.loop.mirror_probability=0",)
LEARNED = "two-stage-learned"


@dataclass(frozen=True)
class Variant:
    """A row of the table. config: below the repository, None is the whole method; overrides: of train.py.
    of: a two-stage variant's mono variant, whose sounds the baseline of its own name puts into space.
    before: the row that it is held against.
    """

    name: str
    title: str
    before: str = ""
    config: str | None = None
    overrides: tuple[str, ...] = ()
    of: str = ""


VARIANTS = (
    Variant("mono", "pretrained mono, copied", config=MONO, overrides=NO_MIRROR),
    Variant("dual", "+ dual branch", "mono", "configs/ablation-no-spacetime.yaml", NO_MIRROR),
    Variant("spacetime", "+ spacetime module", "dual", overrides=NO_MIRROR),
    Variant("mirror", "+ mirror augmentation", "spacetime"),
    Variant("two-stage-truth", "two stages, true direction", "mirror", of="mono"),
    Variant("two-stage-motion", "two stages, motion in the picture", "mirror", of="mono"),
    Variant(LEARNED, "two stages, learned head", "mirror", of="mono"),
)
BOUNDS = {"codec": "codec round trip of the truth", "shuffled": "{}, another clip's picture"}
CALIBRATION_STEPS, HEAD_CALIBRATION_MINUTES = 40, 0.5


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    given = list(sys.argv[1:] if arguments is None else arguments)
    return guard(lambda: run(options, tables.shown_command("benchmarks/ablation.py", given)))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_scoring_options(parser)
    add = parser.add_argument
    names = ", ".join(variant.name for variant in VARIANTS)
    add("--run", type=Path, required=True, help="a run of train.py that has its features")
    add("--train-data", required=True, help="the dataset of that run")
    add("--output", type=Path, required=True)
    add("--seeds", type=positive_int, default=3, help="trainings of each variant (default: 3)")
    add("--minutes", type=positive, default=10.0, help="of each training, at most 60 (default: 10)")
    add("--trunk-minutes", type=positive, default=40.0, help="of the mono network (default: 40)")
    add("--trunk-processes", type=positive_int, default=2, help="of that training, by torchrun (default: 2)")
    add("--processes", type=positive_int, default=2, help="trainings at once, one thread each (default: 2)")
    add("--variants", help=f"only these, by commas: {names}")
    add("--set", action="append", default=[], metavar="key=value", help="for every training; may be repeated")
    add("--no-bounds", action="store_true", help="without ceiling and floor")
    add("--part", default="ablation", help="of --write-to, by its marks' name (default: ablation)")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace, command: str) -> int:
    variants = chosen(options.variants)
    check(options)
    published, clips = published_of(options), clips_of(options)
    trained = [variant for variant in variants if not variant.of]
    do([trunk(options)], 1)
    steps = {variant.name: steps_of(options, variant) for variant in trained}
    tasks = [training(options, v, seed, steps[v.name]) for v in trained for seed in range(options.seeds)]
    do(tasks, options.processes)
    systems = {v.name: [sounds(options, v, seed) for seed in range(options.seeds)] for v in trained}
    if LEARNED in names(variants):
        steps[LEARNED] = head_steps(options)
        do([head(options, seed, steps[LEARNED]) for seed in range(options.seeds)], options.processes)
    for variant in (v for v in variants if v.of):
        systems[variant.name] = [second_stage(options, variant, seed) for seed in range(options.seeds)]
    if not options.no_bounds:
        systems |= {name: [bound(options, name, trained[-1])] for name in BOUNDS}
    titles = {variant.name: variant.title for variant in VARIANTS} | BOUNDS
    titles["shuffled"] = titles["shuffled"].format(trained[-1].title)
    before = {variant.name: variant.before for variant in variants if variant.before in systems}
    where = options.output / "evaluation"
    text = benchmark_table(systems, clips, where, titles, before, options.processes, published)
    counted = ", ".join(f"{titles[name]} {count}" for name, count in steps.items())
    about = (
        f"`{command}` at commit `{tables.commit(ROOT)}`; trunk {options.trunk_minutes:g} min of "
        f"{options.trunk_processes} processes, then "
        f"{options.seeds} seeds of {options.minutes:g} min of one thread for each variant (steps: {counted})"
    )
    tables.publish(f"{about}.\n\n{text}", options.output / "table.md", options.write_to, options.part)
    return 0


def names(variants: Sequence[Variant]) -> list[str]:
    return [variant.name for variant in variants]


def chosen(wanted: str | None) -> list[Variant]:
    """The named variants with those that they build on, in the table's order. UserError for no such name."""
    if wanted is None:
        return list(VARIANTS)
    known = {variant.name: variant for variant in VARIANTS}
    asked = wanted.split(",")
    for name in asked:
        if name not in known:
            raise UserError(f"--variants: there is no {name!r}, expected of {', '.join(known)}")
    asked += [known[name].of for name in asked]
    return [variant for variant in VARIANTS if variant.name in asked]


def check(options: argparse.Namespace) -> None:
    """UserError for what would come to light after hours."""
    tables.check_part(options.write_to, options.part)
    if options.minutes > 60:
        raise UserError(f"--minutes {options.minutes:g}: expected more than 0 and at most 60")
    for part in DONE:
        record = options.run / part / "stage.json"
        if not record.is_file() or not json.loads(record.read_text()).get("finished"):
            raise UserError(
                f"{options.run}: its stage {part} is not finished; first python train.py "
                f"--stages {','.join(DONE)} output={options.run}"
            )


# -------------------- trainings


def trunk(options: argparse.Namespace) -> Task:
    variant = Variant(TRUNK, "", config=MONO, overrides=NO_MIRROR)
    length = (f"flow.loop.max_minutes={options.trunk_minutes:g}", "threads=1")
    return _train(options, TRUNK, variant, length, options.trunk_processes)


def steps_of(options: argparse.Namespace, variant: Variant) -> int:
    """How many steps a training of this variant has: measured once, and kept."""
    name = f"calibration-{variant.name}"
    kept = options.output / name / "steps.json"
    task = _train(options, name, variant, _after_trunk(options, 0, CALIBRATION_STEPS))
    task.begin()
    if not kept.is_file():
        do([task], 1)
        found = re.findall(r"([\d.]+) s/step", task.log.read_text(encoding="utf-8"))
        if not found:
            raise UserError(f"{task.log} does not say how long a step takes")
        write_whole(kept, (json.dumps({"seconds_per_step": float(found[-1])}) + "\n").encode())
    seconds = json.loads(kept.read_text())["seconds_per_step"]
    return max(1, round(60 * options.minutes / seconds))


def training(options: argparse.Namespace, variant: Variant, seed: int, steps: int) -> Task:
    return _train(options, f"{variant.name}-{seed}", variant, _after_trunk(options, seed, steps))


def _after_trunk(options: argparse.Namespace, seed: int, steps: int) -> tuple[str, ...]:
    start = f"init_from={options.output / TRUNK / 'model'}"
    return (start, f"seed={seed}", "threads=1", "flow.loop.max_minutes=0", f"flow.loop.steps={steps}")


def _train(
    options: argparse.Namespace, name: str, variant: Variant, settings: tuple[str, ...], processes: int = 1
) -> Task:
    folder = options.output / name
    config = ("--config", str(ROOT / variant.config)) if variant.config else ()
    chosen = ("flow.loop.validate_every=0", *variant.overrides, *settings, *options.set)
    overrides = (f"output={folder}", f"data.path={options.train_data}", *chosen)
    several = ("-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}")
    launch = (sys.executable, *(several if processes > 1 else ()), str(ROOT / "train.py"))
    command = (*launch, *config, "--adopt", "--stages", "flow,export", *overrides)
    made_from = {"config": variant.config, "settings": chosen, "processes": processes, **_material(options)}
    links = {folder / part: (options.run / part).resolve() for part in DONE}  # which no variant changes
    return Task(name, command, folder / "model" / "config.json", folder / "train.log", made_from, links)


def head_steps(options: argparse.Namespace) -> int:
    """How many steps the two stages' learned head has: as many as fit into the same time, alone."""
    task = _head(options, "calibration-head", 0, ("--minutes", f"{HEAD_CALIBRATION_MINUTES:g}"))
    do([task], 1)
    done = json.loads(task.done.read_text())["training"]["steps"]
    return max(1, round(done * options.minutes / HEAD_CALIBRATION_MINUTES))


def head(options: argparse.Namespace, seed: int, steps: int) -> Task:
    return _head(options, f"head-{seed}", seed, ("--steps", str(steps)))


def _head(options: argparse.Namespace, name: str, seed: int, length: tuple[str, ...]) -> Task:
    folder = options.output / name
    command = (
        *(sys.executable, "-m", "visaudio.evaluation.baselines", "train-spatialiser"),
        *("--dataset", options.train_data, "--features", str(options.run / "features")),
        *("--output", str(folder / "head"), *length, "--seed", str(seed)),
    )
    made_from = {"settings": [*length, f"seed={seed}"], **_material(options)}
    return Task(name, command, folder / "head" / "spatialiser.json", folder / "train.log", made_from)


def _material(options: argparse.Namespace) -> dict[str, str]:
    """What the trainings see: the dataset, and a digest of the features' index."""
    index = (options.run / "features" / "features.json").read_bytes()
    return {"train_data": options.train_data, "features": hashlib.sha256(index).hexdigest()[:16]}


# -------------------- sounds


def sounds(options: argparse.Namespace, variant: Variant, seed: int) -> Path:
    """The folder of a trained variant's sounds, made as far as they are missing."""
    from visaudio.evaluation.generation import Generation, generate

    folder = options.output / f"{variant.name}-{seed}"
    for shared in ("clips", "conditions"):  # of one dataset and one set of encoders
        (options.output / shared).mkdir(exist_ok=True)
        if not (folder / shared).exists():
            (folder / shared).symlink_to((options.output / shared).resolve(), target_is_directory=True)
    settings = Generation(str(folder / "model"), workers=options.processes)
    made, _ = generate(options.dataset, folder, settings, config=options.config, limit=options.limit)
    return made


def second_stage(options: argparse.Namespace, variant: Variant, seed: int) -> Path:
    mono = options.output / f"{variant.of}-{seed}"
    extra = {"spatialiser": options.output / f"head-{seed}" / "head"} if variant.name == LEARNED else {}
    return _baseline(
        options,
        variant.name,
        options.output / f"{variant.name}-{seed}",
        sounds=mono / "sounds" / "model",
        model=str(mono / "model"),
        **extra,
    )


def bound(options: argparse.Namespace, name: str, last: Variant) -> Path:
    """last: the trained variant whose first seed makes it."""
    model = options.output / f"{last.name}-0" / "model"
    # shuffled clips depend on how many there are
    where = "bounds" if options.limit is None else f"bounds-of-{options.limit}"
    return _baseline(options, name, options.output / where, model=str(model))


def _baseline(options: argparse.Namespace, name: str, output: Path, **settings) -> Path:
    from visaudio.evaluation.baselines.running import Request
    from visaudio.evaluation.baselines.running import run as make

    def bar(what: str, total: int) -> tqdm:
        return tqdm(total=total, desc=f"{output.name}: {what}", unit="clip", smoothing=0.05)

    common = {"config": options.config, "limit": options.limit, "workers": options.processes}
    request = Request(name, options.dataset, output, **common, **settings)
    return make(request, bar)


if __name__ == "__main__":
    sys.exit(main())
