"""Which published weights a config names, and how they come back: as a file, a folder, a tag of open_clip."""

import hashlib
import json
from dataclasses import replace

import open_clip
import pytest
import torch
from published import torch_file
from safetensors.torch import save as safetensors_bytes
from small_mmaudio import SMALL

from visaudio import references
from visaudio.codec.dac import DacCodec, DacCodecConfig
from visaudio.codec.mmaudio import MMAudioCodec
from visaudio.config import to_dict
from visaudio.encoders.clip import ClipConfig, ClipEncoder
from visaudio.encoders.perception import PerceptionConfig
from visaudio.encoders.synchformer import SynchformerConfig
from visaudio.presets import get_preset
from visaudio.references import Reference, sources
from visaudio.variants import VARIANTS

OPEN_CLIP = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def named(config):
    return [(s.field, s.repository, s.revision, s.wanted, s.kind) for s in sources(config)]


def test_what_the_presets_name():
    """The real ones, by name: none of their gigabytes is fetched."""
    small = get_preset("small")
    assert named(small.clip) == [("weights", "apple/DFN5B-CLIP-ViT-H-14-378", None, (OPEN_CLIP,), "file")]
    dac = (("config.json",), ("model.safetensors",))
    assert named(small.codec) == [("weights", "descript/dac_44khz", None, dac, "folder")]
    path = "ext_weights/synchformer_state_dict.pth"
    assert named(small.synchformer) == [("weights", "hkchengrex/MMAudio", None, ((path,),), "file")]
    assert named(get_preset("tiny").clip) == [] and named(get_preset("tiny").codec) == []
    variant = VARIANTS["mmaudio-large-44k-v2"]
    assert [name for name, *_ in named(variant.codec)] == ["weights", "vocoder_weights"]
    folder = (("open_clip_config.json",), OPEN_CLIP)
    hub_name = "apple/DFN5B-CLIP-ViT-H-14-384"
    assert named(variant.clip) == [("model_name", hub_name, None, folder, "open_clip")]
    (spatial,) = named(PerceptionConfig())
    assert spatial[0] == "weights" and spatial[1].startswith("timm/vit_pe_spatial_large")


def test_what_is_no_published_file(tmp_path):
    (tmp_path / "w.pth").write_bytes(b"")
    assert sources(ClipConfig(weights=str(tmp_path / "w.pth"))) == ()
    assert sources(SynchformerConfig()) == () and sources(PerceptionConfig(weights=None)) == ()
    # one file of two: the other could not be named to anybody else
    both = replace(SMALL.codec, weights="a/b:v.pth", vocoder_weights=str(tmp_path / "w.pth"))
    assert sources(both) == () and references.licences_of(both, tmp_path, True) == ("unknown",)
    named_so = ClipConfig(model_name="hf-hub:a/b@v1", weights="c/d:e.bin")
    assert [(s.repository, s.revision, s.wanted) for s in sources(named_so)] == [
        ("a/b", "v1", (("open_clip_config.json",),)),
        ("c/d", None, (("e.bin",),)),
    ]
    # a tag that open_clip has from elsewhere than the Hub
    assert sources(ClipConfig(model_name="RN50", weights="no_such_tag")) == ()
    (source,) = sources(SynchformerConfig(weights="a/b@refs/pr/1:x/y.pth"))
    assert (source.repository, source.revision, source.wanted) == ("a/b", "refs/pr/1", (("x/y.pth",),))
    assert references.stripped(SynchformerConfig(weights="a/b:x.pth")).weights is None


@pytest.mark.parametrize(
    "change",
    [
        {"revision": "main"},
        {"repository": "a"},
        {"field": "repository"},
        {"files": {}},
        {"files": {"/etc/passwd": "0" * 64}},
        {"files": {"a/../../b": "0" * 64}},
        {"files": {"a": "0"}},
        {"files": {"a": "0" * 64, "b": "0" * 64}},
    ],
)
def test_a_reference_is_looked_at(change):
    good = Reference("weights", "a/b", "0" * 40, {"w.pth": "0" * 64})
    assert str(good) == "a/b@00000000:w.pth"
    with pytest.raises(ValueError, match="is no reference: expected owner/name, a commit"):
        replace(good, **change)


def test_equal_weights_are_told_from_others():
    torch.manual_seed(0)
    one, two = ClipEncoder(ClipConfig()), ClipEncoder(ClipConfig())
    assert references.same_weights(one, one) and not references.same_weights(one, two)
    two.load_state_dict(one.state_dict())
    assert references.same_weights(one, two)
    two.mean += 0.1  # is not saved, and yet another model
    assert not references.same_weights(one, two)


# -------------------- over the Hub's protocol

ROUND_TRIP = """
from visaudio import references
from visaudio.components import build_part
from visaudio.config import from_dict, to_dict
import importlib
config = from_dict(getattr(importlib.import_module(module), name), values)
made = references.resolve(config, "weights", cache)
fetched = [one.fetch("weights", cache, local_files_only=True) for one in made]
first = build_part(part, config)
again = build_part(part, references.pinned(config, made, fetched))
result = [[to_dict(one) for one in made], references.same_weights(first, again),
          float(sum(p.double().sum() for p in first.parameters()))]
"""


def round_trip(world, part, config):
    names = {"module": type(config).__module__, "name": type(config).__name__}
    return world.right(ROUND_TRIP, part=part, values=to_dict(config), **names)


def total(module):
    return pytest.approx(sum(p.detach().double().sum().item() for p in module.parameters()), rel=1e-6)


@pytest.mark.slow
def test_dac_as_transformers_keeps_it(world, tmp_path):
    torch.manual_seed(0)
    sizes = {"encoder_width": 4, "decoder_width": 32, "strides": (2, 4), "num_codebooks": 2}
    codec = DacCodec(DacCodecConfig(**sizes, sample_rate=8000, codebook_size=16, codebook_dim=2))
    codec.model.save_pretrained(tmp_path)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    world.hub.make("pub/dac").put({**files, "README.md": b"---\nlicense: mit\n---\n"})
    made, same, sum_ = round_trip(world, "codec", replace(codec.config, weights="pub/dac"))
    assert same and sum_ == total(codec)
    assert set(made[0]["files"]) == {"config.json", "model.safetensors"} and made[0]["kind"] == "folder"
    assert made[0]["licence"] == "mit"


@pytest.mark.slow
def test_clip_as_open_clip_keeps_it(world):
    vision = {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1}
    about = {"model_cfg": {"embed_dim": 12, "vision_cfg": vision, "text_cfg": text}, "preprocess_cfg": {}}
    torch.manual_seed(0)
    model = open_clip.CLIP(12, vision_cfg=vision, text_cfg=text)
    weights = safetensors_bytes({name: value.clone() for name, value in model.state_dict().items()})
    files = {"open_clip_config.json": json.dumps(about).encode(), "open_clip_model.safetensors": weights}
    world.hub.make("pub/open-clip").put(files)
    made, same, sum_ = round_trip(
        world, "clip", ClipConfig(model_name="hf-hub:pub/open-clip", grid_columns=2)
    )
    assert same and sum_ == total(model)
    assert made[0]["kind"] == "open_clip" and set(made[0]["files"]) == set(files)
    assert made[0]["licence"] == "unknown"


@pytest.mark.slow
def test_a_codec_of_two_files(world):
    torch.manual_seed(0)
    codec = MMAudioCodec(SMALL.codec)
    world.hub.make("pub/vae").put({"ext/v.pth": torch_file(codec.vae.state_dict())})
    world.hub.make("pub/vocoder").put({"g.pt": torch_file({"generator": codec.vocoder.state_dict()})})
    config = replace(SMALL.codec, weights="pub/vae:ext/v.pth", vocoder_weights="pub/vocoder:g.pt")
    made, same, sum_ = round_trip(world, "codec", config)
    assert same and sum_ == total(codec)
    assert [(one["field"], list(one["files"])) for one in made] == [
        ("weights", ["ext/v.pth"]),
        ("vocoder_weights", ["g.pt"]),
    ]


def test_a_local_file_stands_in_for_what_it_is(tmp_path):
    content = torch_file({"a": torch.ones(1)})
    (tmp_path / "w.pth").write_bytes(content)
    (tmp_path / "w.bin").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    one = Reference("weights", "a/b", "0" * 40, {"sub/x.pth": digest})
    assert one.local(tmp_path / "w.pth") == str(tmp_path / "w.pth")
    assert one.local(tmp_path / "w.bin") is None  # it would be read in another way
    folder = Reference("weights", "a/b", "0" * 40, {"w.pth": digest, "w.bin": digest}, kind="folder")
    assert folder.local(tmp_path) == str(tmp_path)
    clip = replace(folder, kind="open_clip", field="model_name")
    assert clip.local(tmp_path) == f"local-dir:{tmp_path}"
    (tmp_path / "w.bin").write_bytes(content + b"\0")
    assert folder.local(tmp_path) is None
    (tmp_path / "w.bin").unlink()
    assert folder.local(tmp_path) is None
