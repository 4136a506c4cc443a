"""Bytes that a training step keeps for its backward pass, with and without recomputed activations.

Counted by torch's hooks for saved tensors, each storage once, weights not; float32, one sample of 8 s, on the
meta device: sizes are real, nothing is computed.

    python -m benchmarks.activation_memory --presets small,medium,large
"""

import argparse

import torch

from benchmarks.loader import PaperShapes
from visaudio.model.network import DualBranchNetwork
from visaudio.presets import get_preset
from visaudio.training.batches import BatchStream, DropoutConfig
from visaudio.training.block_wrappers import wrap_blocks
from visaudio.training.loop import batch_losses


def kept_bytes(network: torch.nn.Module, batch) -> int:
    kept: dict[int, torch.UntypedStorage] = {}  # held, so that no address is used twice
    weights = {p.untyped_storage()._cdata for p in network.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        losses = batch_losses(network, network, batch)
    del losses
    return sum(storage.nbytes() for storage in kept.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", default="small")
    options = parser.parse_args()
    batch = BatchStream(PaperShapes(2), 0, 1, DropoutConfig()).get(0).to(torch.device("meta"))
    for name in options.presets.split(","):
        with torch.device("meta"):
            network = DualBranchNetwork(get_preset(name).network)
        plain = kept_bytes(network, batch)
        wrap_blocks(network, activation_checkpointing=True, compiled=False)
        saving = kept_bytes(network, batch)
        print(
            f"{name}: {plain / 2**20:.0f} MiB a sample, {saving / 2**20:.0f} MiB with recomputed activations"
        )


if __name__ == "__main__":
    main()
