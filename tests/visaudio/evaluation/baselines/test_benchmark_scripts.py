"""benchmarks/leaderboard.py and benchmarks/ablation.py to their ends, on three clips with a model that is too
small to sound like anything. Trainings are stood in for: each one's model is the micro model."""

import json
import shutil
from pathlib import Path

import pytest
from scripts import load_script

from visaudio.evaluation.baselines import tasks

ROOT = Path(__file__).parents[4]


@pytest.fixture
def marked(tmp_path) -> Path:
    path = tmp_path / "results.md"
    parts = (f"<!-- {name}: begin -->\nold\n<!-- {name}: end -->\n" for name in ("leaderboard", "ablation"))
    path.write_text("".join(parts))
    return path


@pytest.fixture
def scored(heldout, tmp_path, marked) -> list[str]:
    given = ["--dataset", heldout, "--config", "default", "--any-set", "--output", tmp_path / "out"]
    return [str(word) for word in (*given, "--write-to", marked)]


def rows_of(text: str, heading: str) -> dict[str, list[str]]:
    """The first table below a heading: first cell -> the others."""
    table = text.split(heading)[1].strip().split("\n\n")[0].split("\n<!--")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {row[0]: row[1:] for row in cells}


@pytest.mark.slow
def test_the_leaderboard(scored, heldout, micro_model, spatialiser, marked, tmp_path, capsys):
    leaderboard = load_script(ROOT / "benchmarks" / "leaderboard.py")
    command = [*scored, "--model", str(micro_model), "--spatialiser", str(spatialiser), "--workers", "1"]
    assert leaderboard.main(command) == 0
    text = marked.read_text()
    rows = rows_of(text, "in at least 95 % of its active frames (3 clips):")
    own = micro_model.name
    assert list(rows) == [
        "method", "---", "codec round trip of the truth (ceiling)", f"**{own}**",
        f"{own}, mono copied to both ears", f"{own} in mono, then the true direction",
        f"{own} in mono, then motion in the picture", f"{own} in mono, then a learned head",
        f"{own}, another clip's picture (floor)",
    ]  # fmt: skip
    column = rows["method"].index("side correct (%) ↑")
    assert float(rows[f"{own}, mono copied to both ears"][column].split()[0]) == 0
    assert "old\n<!-- leaderboard" not in text and "old\n<!-- ablation" in text
    assert (tmp_path / "out" / "table.md").read_text().rstrip() in text
    capsys.readouterr()
    # another system, its own rows kept; a sound may come from anywhere
    shutil.copytree(tmp_path / "out" / "sounds" / "codec", tmp_path / "theirs")
    assert leaderboard.main([*command, "--system", f"theirs={tmp_path / 'theirs'}"]) == 0
    rows = rows_of(marked.read_text(), "in at least 95 % of its active frames (3 clips):")
    assert rows["theirs"] == rows["codec round trip of the truth (ceiling)"]


@pytest.mark.slow
def test_the_ablation(
    scored, fake_biaudio, micro_model, micro_features, spatialiser, marked, tmp_path, monkeypatch
):
    ablation = load_script(ROOT / "benchmarks" / "ablation.py")
    run = tmp_path / "run"
    for part in ablation.DONE:
        (run / part).mkdir(parents=True)
        (run / part / "stage.json").write_text('{"finished": true}')
    shutil.copy(micro_features / "features.json", run / "features")
    called = []

    def call(task):
        called.append(task.name)
        task.log.write_text("flow: step 40/40  60.000 s/step  0 s left\n")
        if task.done.name == "spatialiser.json":
            shutil.copytree(spatialiser, task.done.parent)
            notes = json.loads(task.done.read_text())
            notes["training"]["steps"] = 5
            task.done.write_text(json.dumps(notes))
        else:
            shutil.copytree(micro_model, task.done.parent)

    monkeypatch.setattr(tasks, "call", call)
    command = [*scored, "--run", str(run), "--train-data", str(fake_biaudio), "--seeds", "2"]
    command += ["--processes", "1", "--trunk-minutes", "3"]
    assert ablation.main(command) == 0
    trained = [v.name for v in ablation.VARIANTS if not v.of]
    seeds = [f"{name}-{seed}" for name in (*trained, "head") for seed in range(2)]
    calibrations = [f"calibration-{name}" for name in (*trained, "head")]
    assert sorted(called) == sorted(["trunk", *calibrations, *seeds])
    text = marked.read_text()
    assert "trunk 3 min of 2 processes, then 2 seeds of 10 min of one thread" in text
    assert "pretrained mono, copied 10, + dual branch 10" in text and "learned head 100)" in text
    rows = rows_of(text, "in at least 95 % of its active frames (3 clips):")
    bounds = ["codec round trip of the truth", "+ mirror augmentation, another clip's picture"]
    assert list(rows)[2:] == [*(variant.title for variant in ablation.VARIANTS), *bounds]
    assert rows["+ dual branch"] == rows["+ spacetime module"]  # the same weights here
    called.clear()
    assert ablation.main(command) == 0 and called == []  # all is kept
    assert ablation.main([*command, "--set", "flow.loop.batch_size=2"]) == 2  # and is not taken for other
