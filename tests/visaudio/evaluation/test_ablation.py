"""benchmarks/ablation.py: what it trains, from what, and what it says before hours are spent."""

import json
import sys
from pathlib import Path

import pytest
from scripts import load_script

from visaudio.training.recipe import load_train_config

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "benchmarks" / "ablation.py"


@pytest.fixture(scope="module")
def ablation():
    return load_script(SCRIPT)


@pytest.fixture
def options(ablation, tmp_path):
    for part in ablation.DONE:
        (tmp_path / "run" / part).mkdir(parents=True)
        (tmp_path / "run" / part / "stage.json").write_text(json.dumps({"finished": True}))
    (tmp_path / "run" / "features" / "features.json").write_text("{}")
    given = ["--run", str(tmp_path / "run"), "--train-data", "data/synth", "--dataset", "data/benchmark"]
    return ablation.parse([*given, "--output", str(tmp_path / "out"), "--set", "flow.loop.batch_size=8"])


@pytest.fixture(autouse=True)
def whatever_clips(ablation, monkeypatch):
    monkeypatch.setattr(ablation, "clips_of", lambda options: None)


def _given(options):
    folders = ["--run", str(options.run), "--output", str(options.output)]
    return [*folders, "--train-data", "data/synth", "--dataset", "data/benchmark"]


def _config(task):
    """What the train.py of a task would train."""
    arguments = list(task.command[1:])
    config = arguments[arguments.index("--config") + 1] if "--config" in arguments else None
    return load_train_config(config, [a for a in arguments if "=" in a and not a.startswith("--")])


def test_each_variant_is_the_one_before_with_one_thing_more(ablation, options):
    configs = {}
    for variant in ablation.VARIANTS:
        if not variant.of:
            configs[variant.name] = _config(ablation.training(options, variant, 1, 300))
    network = {name: config.model.network for name, config in configs.items()}
    mirror = {name: config.flow.loop.mirror_probability for name, config in configs.items()}
    assert {n: c.dual_branch for n, c in network.items()} == {
        "mono": False, "dual": True, "spacetime": True, "mirror": True
    }  # fmt: skip
    assert {n: c.spacetime for n, c in network.items()} == {
        "mono": False, "dual": False, "spacetime": True, "mirror": True
    }  # fmt: skip
    assert mirror == {"mono": 0, "dual": 0, "spacetime": 0, "mirror": 0.5}
    assert configs["mono"].sampling.shared_noise and not configs["dual"].sampling.shared_noise
    assert network["spacetime"] == network["mirror"]
    for config in configs.values():  # the same for all
        assert config.init_from == str(options.output / "trunk" / "model")
        loop = config.flow.loop
        assert (loop.steps, loop.max_minutes, loop.batch_size, config.seed) == (300, 0, 8, 1)


def test_the_trunk_is_mono_and_starts_from_nothing(ablation, options):
    task = ablation.trunk(options)
    config = _config(task)
    assert config.init_from is None and not config.model.network.dual_branch
    assert (config.flow.loop.max_minutes, config.threads) == (40, 1)
    assert "--nproc_per_node=2" in task.command


def test_equal_time_is_as_many_steps_as_fit_alone(ablation, options, monkeypatch):
    """The last seconds a step that the calibration's log tells, measured once."""
    done = []

    def run(tasks, processes):
        done.extend(tasks)
        tasks[0].begin()
        tasks[0].log.write_text("flow: step 20/40  3.000 s/step\nflow: step 40/40  1.500 s/step  0 s left\n")

    monkeypatch.setattr(ablation, "do", run)
    variant = ablation.VARIANTS[1]
    assert ablation.steps_of(options, variant) == ablation.steps_of(options, variant) == 400  # 10 min / 1.5 s
    (task,) = done
    assert _config(task).flow.loop.steps == ablation.CALIBRATION_STEPS
    assert _config(task).model.network.spacetime is False
    options.minutes = 5
    assert ablation.steps_of(options, variant) == 200 and len(done) == 1


def test_a_training_sees_the_runs_own_features(ablation, options):
    task = ablation.training(options, ablation.VARIANTS[0], 0, 300)
    task.begin()
    for part in ablation.DONE:
        assert (options.output / task.name / part / "stage.json").is_file()
    assert (options.output / task.name / "features").resolve() == (options.run / "features").resolve()


def test_two_stages_bring_what_they_stand_on(ablation):
    assert ablation.names(ablation.chosen("two-stage-motion")) == ["mono", "two-stage-motion"]
    assert ablation.names(ablation.chosen(None)) == [v.name for v in ablation.VARIANTS]


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--minutes", "61"], "--minutes 61: expected more than 0 and at most 60"),
        (["--variants", "mono,stereo"], "there is no 'stereo', expected of mono, dual"),
    ],
)
def test_mistakes_are_one_line(ablation, options, extra, said, capsys):
    assert ablation.main([*_given(options), *extra]) == 2
    assert said in capsys.readouterr().err
    assert not options.output.exists()


def test_a_table_may_stand_in_a_part_of_its_own(ablation, options, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("<!-- ablation: begin -->\n<!-- ablation: end -->\n")
    options.write_to, options.part = page, "two_stages"
    with pytest.raises(ablation.UserError, match="holds no <!-- two_stages: begin -->"):
        ablation.check(options)
    page.write_text("<!-- two_stages: begin -->\n<!-- two_stages: end -->\n")
    ablation.check(options)


def test_a_run_without_features_is_one_line(ablation, options, capsys):
    (options.run / "features" / "stage.json").write_text('{"finished": false}')
    assert ablation.main(_given(options)) == 2
    assert "its stage features is not finished; first python train.py --stages" in capsys.readouterr().err


def test_a_training_that_fails_is_told_by_its_last_line(ablation, tmp_path, monkeypatch):
    script = "print('error: no such thing'); raise SystemExit(2)"
    task = ablation.Task("dual-0", (sys.executable, "-c", script), tmp_path / "done", tmp_path / "log", {})
    with pytest.raises(ablation.UserError, match="dual-0 ended with 2; .* error: no such thing"):
        ablation.do([task], 1)


def test_a_command_runs_where_its_user_is(ablation, tmp_path, monkeypatch):
    """So that the relative folders which it is given are the user's."""
    monkeypatch.chdir(tmp_path)
    task = ablation.Task(
        "mono-0", (sys.executable, "-c", "open('a/done', 'w')"), Path("a/done"), Path("a/log"), {}
    )
    ablation.do([task], 1)
    assert (tmp_path / "a" / "done").is_file()


def test_what_is_done_is_not_done_again(ablation, tmp_path):
    count = tmp_path / "count"
    script = f"open({str(count)!r}, 'a').write('x'); open({str(tmp_path / 'done')!r}, 'w')"
    task = ablation.Task("mono-0", (sys.executable, "-c", script), tmp_path / "done", tmp_path / "log", {})
    ablation.do([task], 2)
    ablation.do([task], 2)
    assert count.read_text() == "x"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"minutes": 60.0}, ""),  # the length is that of the steps
        ({"train_data": "data/other"}, "train_data: data/synth, now data/other"),
        ({"set": ["flow.loop.batch_size=1"]}, "settings: .*batch_size=8.*batch_size=1"),
    ],
)
@pytest.mark.parametrize("finished", [False, True])
def test_a_training_made_otherwise_is_not_taken_for_this_one(ablation, options, changed, said, finished):
    variant = ablation.VARIANTS[1]
    task = ablation.training(options, variant, 0, 300)
    task.begin()
    if finished:
        task.done.parent.mkdir()
        task.done.write_text("{}")
    for name, value in changed.items():
        setattr(options, name, value)
    again = ablation.training(options, variant, 0, 300)
    if not said:
        again.begin()
        return
    with pytest.raises(ablation.UserError, match=f"dual-0 was made otherwise .{said}"):
        again.begin()


def test_steps_features_and_records_count_too(ablation, options):
    variant = ablation.VARIANTS[1]
    ablation.training(options, variant, 0, 300).begin()
    with pytest.raises(ablation.UserError, match="settings: .*steps=300.*steps=301"):
        ablation.training(options, variant, 0, 301).begin()
    (options.run / "features" / "features.json").write_text('{"other": 1}')
    with pytest.raises(ablation.UserError, match="features: "):
        ablation.training(options, variant, 0, 300).begin()
    (options.output / "dual-0" / "made_from.json").write_text("{")
    with pytest.raises(ablation.UserError, match="made_from.json: is damaged, .*; remove the folder"):
        ablation.training(options, variant, 0, 300).begin()


def test_a_finished_training_without_a_record_is_another_one(ablation, options):
    task = ablation.training(options, ablation.VARIANTS[1], 0, 300)
    task.done.parent.mkdir(parents=True)
    task.done.write_text("{}")
    with pytest.raises(ablation.UserError, match="dual-0 was made otherwise"):
        task.begin()


def test_heads_have_as_many_steps_as_fit_alone(ablation, options, monkeypatch):
    def run(tasks, processes):
        (task,) = tasks
        assert task.command[-4:-2] == ("--minutes", "0.5")
        task.done.parent.mkdir(parents=True)
        task.done.write_text(json.dumps({"training": {"steps": 30}}))

    monkeypatch.setattr(ablation, "do", run)
    assert ablation.head_steps(options) == 600  # in 10 min
    command = ablation.head(options, 2, 600).command
    assert command[-4:] == ("--steps", "600", "--seed", "2")


def test_a_table_that_cannot_be_written_is_said_first(ablation, options, capsys, tmp_path):
    (tmp_path / "no_marks.md").write_text("text")
    given = [*_given(options), "--write-to", str(tmp_path / "no_marks.md")]
    assert ablation.main(given) == 2
    assert "no_marks.md: holds no <!-- ablation: begin -->" in capsys.readouterr().err
