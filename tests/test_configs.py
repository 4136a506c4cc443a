"""Every file in configs/ fills the training configuration, and changes what it says and no more; those of the
builder (biaudio*.yaml): bi_audio_dataset/test_build_command.py."""

from dataclasses import replace
from pathlib import Path

import pytest

from visaudio.config import from_dict, read_layers, to_dict
from visaudio.presets import PRESETS, get_preset
from visaudio.training.recipe import TrainConfig, load_train_config

FOLDER = Path(__file__).parents[1] / "configs"
FILES = sorted(path for path in FOLDER.glob("*.yaml") if not path.name.startswith("biaudio"))


def replace_codec(config: TrainConfig, other: TrainConfig) -> TrainConfig:
    """The config with the other's kind of codec, whose network then has the other's width of tokens."""
    network = replace(config.model.network, token_dim=other.model.network.token_dim)
    return replace(config, model=replace(config.model, codec=other.model.codec, network=network))


def differences(a: dict, b: dict, at: str = "") -> set[str]:
    """Dotted keys at which two nested dicts differ."""
    out = set()
    for key in a:
        path = f"{at}{key}"
        if isinstance(a[key], dict) and isinstance(b[key], dict):
            out |= differences(a[key], b[key], f"{path}.")
        elif a[key] != b[key]:
            out.add(path)
    return out


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_file_fits_the_schema(path):
    values = read_layers(path)
    preset = get_preset(values["preset"])
    config = from_dict(TrainConfig, values, defaults=TrainConfig(preset=preset.name, model=preset))
    assert config.model.name == preset.name


def test_each_preset_has_a_base():
    assert set(PRESETS) <= {p.stem for p in FILES}


def test_tiny_is_the_default():
    assert load_train_config(FOLDER / "tiny.yaml") == load_train_config()


@pytest.mark.parametrize(
    ("name", "switches"),
    [
        ("single-branch", {"dual_branch", "spacetime", "inter_ear_attention"}),
        ("no-spacetime", {"spacetime"}),
        ("no-inter-ear", {"inter_ear_attention"}),
        ("shared-video", {"shared_video_tokens"}),
    ],
)
def test_an_ablation_changes_its_switches_alone(name, switches):
    default, ablation = load_train_config(), load_train_config(FOLDER / f"ablation-{name}.yaml")
    expected = {f"model.network.{s}" for s in switches} | {"output"}
    assert differences(to_dict(default), to_dict(ablation)) == expected


def test_a_dac_takes_the_spectral_codecs_place_and_no_more():
    default, dac = load_train_config(), load_train_config(FOLDER / "tiny-dac.yaml")
    changed = {
        ".".join(key.split(".")[:2])
        for key in differences(to_dict(replace_codec(default, dac)), to_dict(dac))
    }
    assert changed == {"codec.loop", "codec.batch_size", "codec.crop_s", "codec.gain_db",
                       "codec.active_share", "output"}  # fmt: skip
    assert dac.model.sequence == default.model.sequence and dac.model.codec.latent_dim == 48
    continuous = load_train_config(FOLDER / "tiny-dac.yaml", ["model.codec.latents=continuous"])
    assert continuous.model.codec.latent_dim == dac.model.codec.latent_dim  # one network for both


def test_paper_scale_recipe_is_mmaudios():
    values = read_layers(FOLDER / "large.yaml")
    preset = get_preset(values["preset"])
    loop = from_dict(TrainConfig, values, defaults=TrainConfig(preset=preset.name, model=preset)).flow.loop
    assert (loop.steps, loop.batch_size, loop.clip_norm, loop.betas) == (300000, 512, 1.0, (0.9, 0.95))
    assert [m * loop.steps for m in loop.schedule.milestones] == pytest.approx([240000, 270000])
