"""The card's text, and what `datasets` and our reader find by it (test_hub_configs.py)."""

import builtins
import json
import re

import fake_sets
import pytest
import yaml

from bi_audio_dataset import card, card_plots
from bi_audio_dataset.card import Config
from bi_audio_dataset.figures import IN_VIEW, Figures
from bi_audio_dataset.schema import UserError

CONFIGS = [
    Config("default", "data", {"train": (3, 900), "test": (1, 300)}),
    Config("synth", "synth/data", {"train": (7, 70)}),
]


def some_figures(*origins: tuple[str, str]) -> Figures:
    figures = Figures()
    for number, origin in enumerate(origins or (("fake", "CC0-1.0"),)):
        figures.clips["train"] += 900
        figures.split_seconds["train"] += 7200.0
        figures.origins[origin] += 900
        figures.origin_seconds[origin] += 7200.0 * (number + 1)
    figures.hrir_sets["sphere"] += 1
    return figures


def head(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def test_yaml_head_names_files_rows_licence_and_size():
    found = head(card.card('A "quoted" title', some_figures(), configs=CONFIGS))
    assert found["pretty_name"] == 'A "quoted" title'
    assert (found["license"], found["size_categories"]) == ("cc0-1.0", ["n<1K"])
    assert found["task_categories"] == ["text-to-audio", "other"]
    assert found["configs"] == [
        {
            "config_name": "default",
            "default": True,
            "data_files": [
                {"split": "train", "path": "data/train-*"},
                {"split": "test", "path": "data/test-*"},
            ],
        },
        {"config_name": "synth", "data_files": [{"split": "train", "path": "synth/data/train-*"}]},
    ]
    (default, _) = found["dataset_info"]
    assert default["splits"][1] == {"name": "test", "num_bytes": 300, "num_examples": 1}


@pytest.mark.parametrize(
    ("licences", "licence", "name"),
    [
        (["CC-BY-4.0"], "cc-by-4.0", None),
        (["CC BY 4.0"], "cc-by-4.0", None),
        (["unknown"], "unknown", None),
        (["CC0-1.0", "CC-BY-NC-4.0"], ["cc-by-nc-4.0", "cc0-1.0"], None),
        (["LicenseRef-mine"], "other", "LicenseRef-mine"),
        (["CC0-1.0", "mine: all"], ["cc0-1.0", "other"], "mine: all"),
    ],
)
def test_licences_are_said_in_the_hubs_words(licences, licence, name):
    found = head(card.card("t", some_figures(*[("fake", text) for text in licences])))
    assert (found["license"], found.get("license_name")) == (licence, name)


def test_sizes_are_the_hubs_classes():
    sizes = [
        head(card.card("t", some_figures(*[(str(i), "x") for i in range(n)])))["size_categories"]
        for n in (1, 2)
    ]
    assert sizes == [["n<1K"], ["1K<n<10K"]]


def test_tables_of_splits_sources_and_distributions():
    figures = some_figures(("fake", "CC0-1.0"), ("a | b", "CC-BY-4.0"))
    figures.values["level"].extend([-40.0, -20.0, -10.0])
    figures.lateral[IN_VIEW][12:14] = 3, 1  # +30..50 degrees
    figures.lateral[IN_VIEW][0] = 4
    text = card.card("t", figures)
    assert "| train | 1800 | 4.00 |" in text and "Total 1800 clips, 4.00 h." in text
    assert "| a \\| b | CC-BY-4.0 | 900 | 4.00 |\n| fake | CC0-1.0 | 900 | 2.00 |" in text
    assert "| level, dB re full scale | 3 | -38 | -20 | -11 |" in text
    assert "| direction confidence | 0 | - | - | - |" in text
    assert "| left of +30 | 50.0 | 0.0 |" in text and "| right of -30 | 50.0 | 0.0 |" in text
    assert "No clip has ground truth of its sources" in text
    assert "## Settings" not in text and "No plots" not in text


def test_without_matplotlib_the_card_says_so(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.partition(".")[0] == "matplotlib":
            raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    card.write(tmp_path, "t", some_figures(), None, (), [])
    text = (tmp_path / "README.md").read_text()
    assert "No plots: matplotlib was not installed" in text and "![" not in text
    assert not (tmp_path / "assets").exists()


def test_another_missing_module_is_not_taken_for_matplotlib(tmp_path, monkeypatch):
    def broken(*_):
        raise ModuleNotFoundError("No module named 'kiwisolver'", name="kiwisolver")

    monkeypatch.setattr(card_plots, "draw", broken)
    with pytest.raises(ModuleNotFoundError, match="kiwisolver"):
        card.write(tmp_path, "t", some_figures(), None, (), [])


def test_install_replaces_old_plots_and_leaves_other_pictures(tmp_path):
    beside, folder = tmp_path / "beside", tmp_path / "set"
    (folder / "assets").mkdir(parents=True)
    for name in ("lateral.png", "level.png", "mine.png"):
        (folder / "assets" / name).write_bytes(b"old")
    figures = some_figures()
    figures.values["level"].append(-20.0)
    card.write(beside, "t", figures, None, (), [])
    card.install(beside, folder)
    assert sorted(p.name for p in (folder / "assets").iterdir()) == ["level.png", "mine.png"]
    assert (folder / "assets/level.png").read_bytes()[:4] == b"\x89PNG"
    shown = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", (folder / "README.md").read_text())
    assert shown == ["assets/level.png"]
    card.install(beside, folder)  # once more, as after a kill
    assert (folder / "README.md").read_text().startswith("---\n")


def test_configs_are_found_by_names_and_footers(tmp_path):
    clips = fake_sets.rows(3)
    folder = fake_sets.make_set(tmp_path / "set", clips)
    assert [c.name for c in card.find_configs(folder)] == ["default"]
    fake_sets.features(folder, clips)
    (default, features) = card.find_configs(folder)
    assert {split: rows for split, (rows, _) in features.splits.items()} == {"train": 2, "test": 1}
    assert list(default.splits) == ["train", "test"]
    sizes = [p.stat().st_size for p in sorted((folder / "data").glob("train-*"))]
    assert default.splits["train"] == (2, sum(sizes))
    (folder / "features/all.parquet").write_bytes(b"x")
    with pytest.raises(UserError, match="expected a name that begins with a split"):
        card.find_configs(folder)
    (folder / "features/all.parquet").rename(folder / "features/train-1.parquet")
    with pytest.raises(UserError, match="is not a whole Parquet file"):
        card.find_configs(folder)


def test_settings_and_selection_are_in_it():
    text = card.card("t", some_figures(), {"seed": 3}, ["4 of 5 clips"])
    assert "## Selection\n\n4 of 5 clips\n" in text
    assert json.loads(text.split("```json\n")[1].split("```")[0]) == {"seed": 3}
