"""Every file in configs/ fills the training configuration, and changes what it says and no more; those of the
builder (biaudio*.yaml): bi_audio_dataset/test_build_command.py."""

from pathlib import Path

import pytest

from visaudio.config import from_dict, read_layers, to_dict
from visaudio.presets import PRESETS, get_preset
from visaudio.training.recipe import TrainConfig, load_train_config

FOLDER = Path(__file__).parents[1] / "configs"
FILES = sorted(path for path in FOLDER.glob("*.yaml") if not path.name.startswith("biaudio"))


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


def test_paper_scale_recipe_is_mmaudios():
    values = read_layers(FOLDER / "large.yaml")
    preset = get_preset(values["preset"])
    loop = from_dict(TrainConfig, values, defaults=TrainConfig(preset=preset.name, model=preset)).flow.loop
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
