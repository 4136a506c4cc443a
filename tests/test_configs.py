"""Every file in configs/ fills the training configuration, and changes what it says and no more; those of the
builder (biaudio*.yaml): bi_audio_dataset/test_build_command.py."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from visaudio.config import read_layers, to_dict
from visaudio.encoders.perception import PerceptionEncoder
from visaudio.model.network import DualBranchNetwork
from visaudio.presets import PRESETS
from visaudio.training.recipe import TrainConfig, load_train_config
from visaudio.variants import VARIANTS

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
    config = load_train_config(path)
    assert config.preset == config.model.name == read_layers(path)["preset"]


def test_each_preset_has_a_base():
    assert set(PRESETS) <= {p.stem for p in FILES}


def test_tiny_is_the_default():
    assert load_train_config(FOLDER / "tiny.yaml") == load_train_config()


BLOCKS = {"dual_branch", "spacetime", "inter_ear_attention", "cross_ear_input", "interaural_whitening"}
NETWORK = "model.network."


@pytest.mark.parametrize(
    ("name", "base", "changes"),
    [
        ("shared-branches", "tiny", {NETWORK + "dual_branch"}),
        ("no-spacetime", "tiny", {NETWORK + "spacetime"}),
        ("no-inter-ear", "tiny", {NETWORK + "inter_ear_attention"}),
        ("shared-video", "tiny", {NETWORK + "shared_video_tokens"}),
        ("mono-copied", "tiny", {NETWORK + name for name in BLOCKS} | {"sampling.shared_noise"}),
        ("no-warm-start", "small", {"init_from"}),
        ("pe-spatial", "small", {NETWORK + "spatial_dim", "model.spatial"}),
    ],
)
def test_an_ablation_changes_its_switches_alone(name, base, changes):
    default, ablation = (load_train_config(FOLDER / f"{file}.yaml") for file in (base, f"ablation-{name}"))
    assert differences(to_dict(default), to_dict(ablation)) == changes | {"output"}
    assert len((FOLDER / f"ablation-{name}.yaml").read_text().splitlines()) <= 10


def test_the_shipped_recipe_is_a_number_of_steps_of_every_stage():
    """A run without time budgets ends with the same weights wherever it is stopped."""
    shipped = load_train_config(FOLDER / "tiny-shipped.yaml")
    assert shipped.model == load_train_config().model  # what the package's weights fit
    stages = (shipped.codec, shipped.clip, shipped.synchformer, shipped.flow)
    assert [stage.loop.max_minutes for stage in stages] == [0, 0, 0, 0]
    kept = shipped.data.clips * 0.9  # clips for training, all of which the encoders see
    assert min(shipped.clip.max_clips, shipped.synchformer.max_clips) >= kept


def test_every_ablation_is_held_by_the_test_above():
    marks = test_an_ablation_changes_its_switches_alone.pytestmark[0].args[1]
    assert {f"ablation-{name}" for name, *_ in marks} == {p.stem for p in FILES if "ablation" in p.stem}


@pytest.mark.parametrize(
    ("preset", "upstream"), [("small", "small_44k"), ("medium", "medium_44k"), ("large", "large_44k_v2")]
)
def test_presets_start_from_mmaudios_network_of_their_size(preset, upstream):
    """That its shapes are the preset's: model/test_warm_start.py."""
    config = load_train_config(FOLDER / f"{preset}.yaml")
    assert config.init_from == f"hkchengrex/MMAudio:weights/mmaudio_{upstream}.pth"
    assert config.init_from == VARIANTS[f"mmaudio-{upstream.replace('_', '-')}"].weights
    assert load_train_config(FOLDER / "ablation-no-warm-start.yaml").init_from is None


def test_the_perception_encoders_widths_reach_the_network():
    """Full size, on the meta device: its tokens are as wide as what the network reads."""
    model = load_train_config(FOLDER / "ablation-pe-spatial.yaml").model
    with torch.device("meta"):
        network = DualBranchNetwork(model.network)
        encoder = PerceptionEncoder(replace(model.spatial, weights=None))
    assert network.empty_spatial_feat.shape == (1, encoder.grid_dim) == (1, 1024)
    assert encoder.model.patch_embed.grid_size == (32, 32) and encoder.image_size == 448
    # a small public one on the tiny recipe, as the file's head says
    tiny = load_train_config(
        FOLDER / "tiny.yaml", ["model.spatial.model_name=vit_pe_spatial_tiny_patch16_512"]
    )
    assert tiny.model.network.spatial_dim == 192 and tiny.model.clip == load_train_config().model.clip
    assert tiny.model.spatial.source == "timm/vit_pe_spatial_tiny_patch16_512.fb:model.safetensors"


def test_mono_copied_ears_know_nothing_of_each_other_and_come_out_equal():
    config = load_train_config(FOLDER / "ablation-mono-copied.yaml")
    torch.manual_seed(0)
    network = DualBranchNetwork(config.model.network).eval()
    with torch.no_grad():
        for parameter in network.parameters():  # zero gates would hide a way from ear to ear
            parameter.add_(0.05 * torch.randn_like(parameter))
    sequence = config.model.sequence.with_duration(0.4)
    conditions = network.null_conditions(1, sequence)
    conditions.spatial_features.normal_()
    x, t = torch.randn(1, 2, sequence.num_tokens, config.model.network.token_dim), torch.tensor([0.3])
    other = x.clone()
    other[:, 1] = torch.randn_like(other[:, 1])
    with torch.no_grad():
        assert torch.equal(network(x, t, conditions)[:, 0], network(other, t, conditions)[:, 0])
        network.set_latent_stats(torch.randn(x.shape[-1]), torch.rand(x.shape[-1]) + 0.5)
        assert torch.equal(network.normalize(x)[:, 0], network.normalize(other)[:, 0])
        # what is sampled: one noise for both
        same = network(x[:, :1].expand_as(x), t, conditions)
    assert config.sampling.shared_noise and torch.equal(same[:, 0], same[:, 1])
    assert same.abs().mean() > 0.01


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
    loop = load_train_config(FOLDER / "large.yaml").flow.loop
    assert (loop.steps, loop.batch_size, loop.clip_norm, loop.betas) == (300000, 512, 1.0, (0.9, 0.95))
    assert [m * loop.steps for m in loop.schedule.milestones] == pytest.approx([240000, 270000])


LAUNCHERS = sorted((FOLDER / "accelerate").glob("*.yaml"))


@pytest.mark.parametrize("path", LAUNCHERS, ids=lambda p: p.stem)
def test_a_launchers_file_is_accelerates(path):
    from accelerate.commands.config.config_args import ClusterConfig

    config = ClusterConfig.from_yaml_file(path)  # refuses keys that it does not have
    assert config.num_processes == 8 * config.num_machines
    # what this program decides itself is left to it
    assert config.mixed_precision == "no" and not config.dynamo_config


def test_fsdp2_reaches_the_program_as_version_2(monkeypatch):
    """What `accelerate launch --config_file fsdp2.yaml` puts into the environment of each process."""
    from accelerate.commands import launch
    from accelerate.utils import FullyShardedDataParallelPlugin
    from accelerate.utils.launch import prepare_multi_gpu_env

    parser = launch.launch_command_parser()
    given = ["--config_file", str(FOLDER / "accelerate" / "fsdp2.yaml"), "train.py", "preset=large"]
    arguments, *_ = launch._validate_launch_command(parser.parse_args(given))
    environment = prepare_multi_gpu_env(arguments)
    for name, value in environment.items():
        if name.startswith(("ACCELERATE", "FSDP")):
            monkeypatch.setenv(name, value)
    assert environment["ACCELERATE_USE_FSDP"] == "true" and arguments.training_script_args == ["preset=large"]
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward is True
    assert not plugin.cpu_ram_efficient_loading and not plugin.activation_checkpointing


@pytest.mark.parametrize("name", ["small", "medium", "large"])
def test_paper_scale_trains_by_mmaudios_recipe(name):
    """DESIGN section 1: none of what the tiny preset found better for itself is inherited."""
    loop = load_train_config(Path(__file__).parents[1] / "configs" / f"{name}.yaml").flow.loop
    assert (loop.optimizer, loop.betas, loop.weight_decay, loop.clip_norm) == (
        "adamw",
        (0.9, 0.95),
        1e-6,
        1.0,
    )
    assert (loop.t_mean, loop.t_scale, loop.batch_size, loop.steps) == (0.0, 1.0, 512, 300000)
    assert loop.schedule.peak == 1e-4 and loop.schedule.warmup_steps == 1000
    steps = [int(share * loop.steps) for share in loop.schedule.milestones]
    assert (loop.schedule.decay, loop.schedule.step_factor, steps) == ("step", 0.1, [240000, 270000])
    assert {loop.dropout.visual, loop.dropout.clip, loop.dropout.sync, loop.dropout.text} == {0.1}
    assert loop.ema.sigma_rels == (0.05, 0.1)
