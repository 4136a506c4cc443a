"""MMAudio's public files in small: random weights under the same names and in the same forms."""

from pathlib import Path

import torch

from visaudio import variants
from visaudio.codec.bigvgan import BigVganConfig
from visaudio.codec.mel_vae import MelVaeConfig
from visaudio.codec.mmaudio import MMAudioCodec, MMAudioCodecConfig
from visaudio.encoders.clip import ClipConfig, ClipEncoder
from visaudio.encoders.synchformer import SynchformerConfig, SynchformerEncoder
from visaudio.model.network import DualBranchNetwork, NetworkConfig

NETWORK = NetworkConfig(hidden_dim=32, num_heads=2, joint_blocks=1, branch_blocks=2, spatial_width=16)
SMALL = variants.Variant(
    "mmaudio-small-test",
    "nowhere.pth",
    NETWORK,
    codec=MMAudioCodecConfig(
        vae=MelVaeConfig(width=8, latent_dim=6),
        vocoder=BigVganConfig(width=64, block_kernels=(3,), dilations=((1,),)),
    ),
    clip=ClipConfig(image_size=128, patch_size=16, width=32, layers=1, embed_dim=32, vocab_size=500),
    synchformer=SynchformerConfig(image_size=32, width=32, depth=1, heads=2, resize="crop"),
)


def mmaudios_names(network: DualBranchNetwork) -> dict[str, torch.Tensor]:
    """A state dict as MMAudio would have written it: one set of blocks, none of what is new."""
    state = {}
    for name, value in network.state_dict().items():
        if name.startswith((*variants.SILENT_WHEN_NEW, "branches.1.")):
            continue
        name = name.replace("branches.0.", "fused_blocks.").replace("empty_text_feat", "empty_string_feat")
        state[name.replace(".modulation.", ".adaLN_modulation.1.")] = value
    return state


def write_files(folder: Path) -> dict[str, Path]:
    """Part -> its file."""
    torch.manual_seed(0)
    preset = SMALL.preset
    codec = MMAudioCodec(SMALL.codec)
    network = DualBranchNetwork(preset.network)
    for block in [*network.branches[0], network.final_layer]:  # zero at first, as all of its kind
        for parameter in block.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
    saved = {
        "network": mmaudios_names(network),
        "codec": codec.vae.state_dict(),
        "vocoder": {"generator": codec.vocoder.state_dict()},
        "synchformer": {
            f"vfeat_extractor.{name}": value
            for name, value in SynchformerEncoder(SMALL.synchformer).state_dict().items()
        },
        "clip": ClipEncoder(SMALL.clip).model.state_dict(),
    }
    for name, state in saved.items():
        torch.save(state, folder / f"{name}.pth")
    return {name: folder / f"{name}.pth" for name in saved}
