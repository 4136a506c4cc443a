"""The micro model with CLIP and Synchformer as others' published weights, and a Hub that holds them."""

import io
from dataclasses import replace

import torch
from hub_server import HubServer, Repository
from micro import micro_components, micro_preset

from visaudio.presets import Preset

CLIP = "pub/clip@main:open_clip.bin"
SYNCHFORMER = "hkchengrex/MMAudio:ext_weights/sync.pth"
CARD = b"---\nlicense: apple-amlr\n---\n# CLIP\n"


def published_preset() -> Preset:
    start = micro_preset()
    clip = replace(start.clip, weights=CLIP)
    return replace(start, clip=clip, synchformer=replace(start.synchformer, weights=SYNCHFORMER))


def torch_file(state: dict) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def publish(hub: HubServer, seed: int = 3) -> tuple[Repository, Repository]:
    """The repositories that published_preset names; MMAudio's without a card."""
    components = micro_components(seed)
    clip, synchformer = hub.make("pub/clip"), hub.make("hkchengrex/MMAudio")
    clip.put({"README.md": CARD, "open_clip.bin": torch_file(components.clip.model.state_dict())})
    names = {f"vfeat_extractor.{name}": value for name, value in components.synchformer.state_dict().items()}
    synchformer.put({"ext_weights/sync.pth": torch_file(names)})
    return clip, synchformer
