"""What a configuration can be refused for before anything runs, instead of hours later."""

import math
import os
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bi_audio_dataset.schema import UserError, reason_of
from visaudio.config import to_dict
from visaudio.training.batches import share_of_batch
from visaudio.training.block_wrappers import check_compiler
from visaudio.training.coupling import Coupling
from visaudio.training.lora import check_lora, target_layers
from visaudio.training.optimizer import check_optimizer
from visaudio.training.recipe import TrainConfig
from visaudio.training.trackers import check_trackers

READS_DATASET = ("data", "codec", "clip", "synchformer", "features")


def check_config(config: TrainConfig) -> None:
    """Raise UserError, in one line, for a configuration that some stage could not run."""
    if config.folder.exists() and not config.folder.is_dir():
        raise UserError(f"output={config.folder} is a file, expected a folder")
    for key, value in _numbers(to_dict(config)):
        if not math.isfinite(value):
            raise UserError(f"{key} is {value}, expected a finite number")
    _check_network(config)
    check_lora(config.flow.lora, config.init_from)
    _check_targets(config)
    if config.model.spatial is not None and config.model.spatial.weights is None:
        raise UserError(
            "model.spatial.weights is null, and no stage trains a Perception Encoder: "
            "expected public, a file, or owner/name:path of a file on the Hub"
        )


def check_dataset(config: TrainConfig, unfinished: Iterable[str]) -> None:
    """Raise UserError where one of the unfinished stages reads a dataset, and none can be there."""
    if set(READS_DATASET) & set(unfinished):
        from visaudio.data.dataset import check_location

        for path in config.paths:
            check_location(path)


def check_flow(config: TrainConfig, unfinished: Iterable[str], made: Collection[str] = ()) -> None:
    """Raise UserError for what the flow stage would refuse, with as many processes as there are now.

    made: splits of the dataset that this run makes itself. Apart from check_config, because other stages may
    run elsewhere: features on three GPUs, say.
    """
    loop, world = config.flow.loop, int(os.environ.get("WORLD_SIZE", "1"))
    sharded = world > 1 and os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    check_optimizer(loop.optimizer, sharded)
    share = share_of_batch(loop.batch_size, world, loop.accumulation)
    if loop.ot_group:
        Coupling(loop.ot_group, torch.nn.Module()).check(share)
    if config.flow.export == "best" and "features" in unfinished and not _may_validate(config, made):
        raise UserError("flow.export is 'best', but the data have no validation split to choose by")


def check_tools(config: TrainConfig) -> None:
    """Raise UserError where this machine lacks what the flow stage needs: trackers, a compiler."""
    check_trackers(config.flow.loop.trackers)
    if config.flow.loop.compile:
        cpu = os.environ.get("ACCELERATE_USE_CPU", "false").lower() == "true" or not torch.cuda.is_available()
        check_compiler(torch.device("cpu" if cpu else "cuda"), int(os.environ.get("LOCAL_RANK", "0")))


def _may_validate(config: TrainConfig, made: Collection[str]) -> bool:
    """False where it is known that no clip is held out; of a Hub repository it is not known yet."""
    if not config.paths:
        return "validation" in made
    return any(_holds_validation(Path(path)) for path in config.paths)


def _holds_validation(folder: Path) -> bool:
    import pyarrow.parquet as pq

    from visaudio.data.dataset import local_files

    files = local_files(folder, "default")
    if files is None:
        return True
    try:
        known = [file for file in files if "split" in pq.read_schema(file).names]
        found = [pq.read_table(file, columns=["split"])[0].unique().to_pylist() for file in known]
    except (OSError, ValueError):  # a file that cannot be read: the stage that reads it says which
        return True
    return len(known) < len(files) or any("validation" in splits for splits in found)


def _check_targets(config: TrainConfig) -> None:
    """That each of LoRA's targets calls a layer; what is trained in full is known once weights are read."""
    from visaudio.model.network import DualBranchNetwork

    if config.flow.lora.on:
        with torch.device("meta"):
            network = DualBranchNetwork(config.model.network)
        target_layers(network, config.flow.lora.targets, ())


def check_weights(config: TrainConfig, unfinished: Iterable[str]) -> None:
    """Raise UserError where unfinished stages will read published weights that cannot be had or do not fit.

    They are fetched and loaded here, one part after the other, and let go again: a minute for the large ones,
    where building data first would take hours.
    """
    from visaudio.model.network import DualBranchNetwork
    from visaudio.training.checkpoint import list_checkpoints
    from visaudio.training.initial import load
    from visaudio.training.parts import make_part, published

    unfinished = set(unfinished)
    if "flow" in unfinished and config.init_from is not None:
        if not list_checkpoints(config.folder / "flow" / "checkpoints"):
            with torch.device("meta"):
                network = DualBranchNetwork(config.model.network)
            load(network, config.init_from)
    if "features" in unfinished:
        for part in published(config.model):
            _check_widths(config, part, make_part(config.model, part))


def _check_widths(config: TrainConfig, part: str, module: torch.nn.Module) -> None:
    """What a loaded part gives must be what the network was made for."""
    network, spatial = config.model.network, config.model.spatial
    agreements = {
        "codec": (("token_dim", "latent_dim"),),
        "clip": (("clip_dim", "embed_dim"), ("text_dim", "text_dim"), ("text_tokens", "context_length")),
        "synchformer": (("sync_dim", "output_dim"),),
        "spatial": (("spatial_dim", "grid_dim"),),
    }[part]
    if part == "clip" and spatial is None:
        agreements += (("spatial_dim", "grid_dim"),)
    for ours, theirs in agreements:
        expected, found = getattr(network, ours), getattr(module, theirs)
        found *= config.model.sequence.frames_per_token if part == "codec" else 1
        if expected != found:
            raise UserError(
                f"model.network.{ours} is {expected}, but the weights of {part} give {found}: set it so, "
                f"or give other weights"
            )


def _check_network(config: TrainConfig) -> None:
    """Build the parts whose sizes are most often changed, without memory for their weights."""
    from visaudio.encoders.synchformer import SynchformerEncoder
    from visaudio.model.network import DualBranchNetwork

    model = config.model
    parts = (
        ("network", lambda: DualBranchNetwork(model.network)),
        ("synchformer", lambda: SynchformerEncoder(replace(model.synchformer, weights=None))),
    )
    for name, build in parts:
        heads = getattr(getattr(model, name), "num_heads", 1)
        if heads < 1:
            raise UserError(f"model.{name}.num_heads is {heads}, expected at least 1")
        try:
            with torch.device("meta"):
                build()
        except Exception as error:  # whatever a module says of sizes that do not go together
            said = reason_of(error)
            raise UserError(f"model.{name} cannot be built: {said or type(error).__name__}") from error


def _numbers(value: Any, name: str = "") -> Iterable[tuple[str, float]]:
    """The floats of nested dicts and lists, each with its dotted key."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _numbers(item, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for item in value:
            yield from _numbers(item, name)
    elif isinstance(value, float):
        yield name, value
