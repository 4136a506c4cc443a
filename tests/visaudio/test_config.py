from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from bi_audio_dataset.schema import UserError
from visaudio.config import from_dict, load_config, to_dict


@dataclass(frozen=True)
class Small:
    width: int = 4
    rate: float = 1e-4


@dataclass(frozen=True)
class Large:
    depth: int = 9


@dataclass(frozen=True)
class Run:
    name: str = "a"
    steps: int = 10
    bf16: bool = True
    folder: Path | None = None
    betas: tuple[float, float] = (0.9, 0.95)
    splits: tuple[str, ...] = ("train",)
    mode: Literal["crop", "squash"] = "crop"
    part: Small | Large = field(default_factory=Small)
    sizes: dict[str, int] = field(default_factory=dict)


def test_layers_override_each_other_in_order(tmp_path):
    (tmp_path / "base.yaml").write_text("steps: 20\nname: base\npart: {width: 5}\n")
    (tmp_path / "run.yaml").write_text("base: base.yaml\nname: run\n")
    run = load_config(Run, tmp_path / "run.yaml", ["part.rate=1e-3", "betas=[0.8,1]", "folder=x/y"])
    assert run == Run(
        name="run", steps=20, betas=(0.8, 1.0), folder=Path("x/y"), part=Small(width=5, rate=1e-3)
    )


def test_an_instance_gives_the_defaults():
    start = Run(steps=7, part=Large(depth=3))
    assert load_config(start, None, ["name=b"]) == Run(name="b", steps=7, part=Large(depth=3))
    assert load_config(start, None, ["part.depth=4"]).part == Large(depth=4)
    assert start.part == Large(depth=3)


@pytest.mark.parametrize("run", [Run(), Run(part=Large(2), folder=Path("d"), splits=(), sizes={"a": 1})])
def test_dict_round_trip(run):
    assert from_dict(Run, to_dict(run)) == run


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("stesp=3", "unknown key 'stesp'.*steps"),
        ("part.widht=3", "unknown key 'part.widht' in part.*width"),
        ("steps=many", "steps: expected int, got 'many'"),
        ("steps=1.5", "steps: expected int, got 1.5"),
        ("steps=true", "steps: expected int, got True"),
        ("bf16=1", "bf16: expected bool, got 1"),
        ("name=3", "name: expected str, got 3"),
        ("mode=zoom", "mode: expected one of 'crop', 'squash', got 'zoom'"),
        ("betas=[1]", "betas: expected"),
        ("splits=[1]", r"splits\[0\]: expected str, got 1"),
        ("part.type=Huge", "part.type: expected one of Small, Large, got 'Huge'"),
        ("part=3", "part: expected Small or Large, got 3"),
        ("sizes.a=b", "sizes.a: expected int"),
        ("steps", "not of the form key=value"),
        ("name=${nowhere}", "nowhere"),
    ],
)
def test_mistakes_are_named(override, said):
    with pytest.raises(UserError, match=said) as caught:
        load_config(Run, None, [override])
    assert "\n" not in str(caught.value)


def test_numbers_that_yaml_reads_otherwise(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("steps: 1e+3\npart: {rate: 1e-4}\n")  # YAML 1.1: a float, and a string
    run = load_config(Run, path)
    assert run.steps == 1000 and isinstance(run.steps, int) and run.part.rate == 1e-4


def test_unreadable_files(tmp_path):
    with pytest.raises(UserError, match="missing.yaml: cannot be read"):
        load_config(Run, tmp_path / "missing.yaml")
    (tmp_path / "bad.yaml").write_text("steps: [1\n")
    with pytest.raises(UserError, match="bad.yaml: not valid YAML"):
        load_config(Run, tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(UserError, match="list.yaml: expected keys"):
        load_config(Run, tmp_path / "list.yaml")
    (tmp_path / "loop.yaml").write_text("base: loop.yaml\n")
    with pytest.raises(UserError, match="its own base"):
        load_config(Run, tmp_path / "loop.yaml")
