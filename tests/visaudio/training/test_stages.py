import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bi_audio_dataset.schema import UserError
from visaudio.training import heartbeat
from visaudio.training.progress import minutes
from visaudio.training.stages import Plan, Stage

ROOT = Path(__file__).parents[3]


def _plan(folder, log, settings=None, stop_at=None):
    settings = settings or {}

    def stage(name, after=(), **more):
        def run(path):
            log.append(name)
            return name != stop_at

        return Stage(name, name, run, settings.get(name, {"rate": 1.0}), 1.0, after, **more)

    return Plan(
        folder, [stage("data"), stage("codec", ("data",)), stage("flow", ("data", "codec"), always=True)]
    )


def _run(plan, names=None):
    chosen = plan.select(names)
    plan.check(chosen)
    return plan.execute(chosen)


def test_finished_stages_are_skipped_and_unfinished_ones_go_on(tmp_path):
    log = []
    assert not _run(_plan(tmp_path, log, stop_at="codec"))
    assert log == ["data", "codec"]
    log.clear()
    assert _run(_plan(tmp_path, log))
    assert log == ["codec", "flow"]
    log.clear()
    assert _run(_plan(tmp_path, log))
    assert log == ["flow"]  # it finds out itself whether there is more to do


def test_a_stage_with_other_settings_is_refused_with_the_difference(tmp_path):
    _run(_plan(tmp_path, []))
    with pytest.raises(UserError, match=r"codec was made with other settings \(loop.rate: None, now 2"):
        _run(_plan(tmp_path, [], {"codec": {"loop": {"rate": 2}}}))


def test_other_settings_can_be_adopted(tmp_path, capsys):
    _run(_plan(tmp_path, []))
    log = []
    plan = _plan(tmp_path, log, {"codec": {"rate": 2.0}})
    plan.check(plan.select(["flow"]), adopt=True)
    assert (
        "codec was made with other settings (rate: 1.0, now 2.0); it is taken as it is"
        in capsys.readouterr().err
    )
    assert plan.execute(plan.select(["flow"])) and log == ["flow"]


def test_what_changes_an_earlier_stage_makes_the_later_ones_stale(tmp_path):
    _run(_plan(tmp_path, []))
    changed = _plan(tmp_path, [], {"data": {"rate": 3.0}})
    (tmp_path / "data" / "stage.json").unlink()
    with pytest.raises(UserError, match="codec was made with other settings of an earlier stage"):
        _run(changed)


def test_time_budgets_and_logging_do_not_make_another_run(tmp_path):
    _run(_plan(tmp_path, [], {"codec": {"loop": {"max_minutes": 30, "log_every": 5, "rate": 1}}}))
    assert _run(_plan(tmp_path, [], {"codec": {"loop": {"max_minutes": 60, "log_every": 9, "rate": 1}}}))


def test_selection_keeps_the_order_and_needs_what_comes_before(tmp_path):
    log = []
    plan = _plan(tmp_path, log)
    assert [stage.name for stage in plan.select(["flow", "data"])] == ["data", "flow"]
    with pytest.raises(UserError, match="stage codec needs stage data, which is not finished"):
        _run(plan, ["codec"])
    with pytest.raises(UserError, match="unknown stage 'flwo'; the stages are data, codec, flow"):
        plan.select(["flwo"])
    assert log == []


def test_the_record_adds_up_the_minutes(tmp_path):
    _run(_plan(tmp_path, []))
    path = tmp_path / "flow" / "stage.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "minutes": 12.5}))
    _run(_plan(tmp_path, []))
    again = json.loads(path.read_text())
    assert again["finished"] and 12.5 <= again["minutes"] < 12.6


def test_the_others_end_where_the_first_process_fails_or_stops(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "EVERY_S", 0.05)
    monkeypatch.setattr(heartbeat, "LOOK_S", 0.02)
    (tmp_path / heartbeat.NAME).write_text("earlier 9 failed\n")  # of another run: does not count
    waiting = heartbeat.FirstProcess(tmp_path)
    ready = iter([False, False, True])
    with heartbeat.Heartbeat(tmp_path):
        assert waiting.wait_until(lambda: next(ready))
    with pytest.raises(ValueError), heartbeat.Heartbeat(tmp_path):
        raise ValueError
    assert not waiting.wait_until(lambda: False)

    again = heartbeat.FirstProcess(tmp_path)
    plan = _plan(tmp_path, [], stop_at="codec")
    plan.execute(plan.select(None))
    assert not again.wait_until(lambda: False)


def test_the_others_end_where_the_first_process_is_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "GONE_S", 0.2)
    monkeypatch.setattr(heartbeat, "LOOK_S", 0.02)
    with pytest.raises(UserError, match="no sign in .* this machine does not see the same folder"):
        heartbeat.FirstProcess(tmp_path / "another machine's").wait_until(lambda: False)


@pytest.fixture
def quick(monkeypatch):
    """Beats every 0.05 s, and who gives none for 3 s is gone: a loaded machine stands still for a second."""
    for name, value in {"EVERY_S": 0.05, "LOOK_S": 0.02, "GONE_S": 3.0}.items():
        monkeypatch.setattr(heartbeat, name, value)


def _shared(folder, log, who):
    def run(path):
        log.append(who)
        return True

    return Plan(folder, [Stage("features", "features", run, {}, 1.0, parallel=True)])


def _beside(work, *arguments):
    """Another process's work, in a thread; what came of it is appended to the list, an error too."""
    came = []

    def follow():
        try:
            came.append(work(*arguments))
        except UserError as error:
            came.append(error)

    thread = threading.Thread(target=follow)
    thread.start()
    time.sleep(0.1)  # by now it has read what an earlier run left
    return thread, came


@pytest.mark.parametrize("local_rank", ["1", "0"])  # of the same machine, and the first of another one
def test_the_others_wait_for_a_long_check_and_only_then_begin(tmp_path, monkeypatch, quick, local_rank):
    log = []

    def check():
        time.sleep(3 * heartbeat.GONE_S)
        log.append("checked")

    for name, value in {"LOCAL_RANK": local_rank, "GROUP_RANK": str(1 - int(local_rank))}.items():
        monkeypatch.setenv(name, value)
    other = _shared(tmp_path, log, "other")
    thread, came = _beside(other._follow, other.select(None), lambda: log.append("other's check"))
    first = _shared(tmp_path, log, "first")
    assert first.execute(first.select(None), check)
    thread.join()
    assert came == [True] and log.index("checked") < min(log.index("first"), log.index("other"))
    assert ("other's check" in log) == (local_rank == "0")


def test_a_check_that_fails_ends_the_others(tmp_path, monkeypatch, quick):
    def check():
        time.sleep(2 * heartbeat.GONE_S)
        raise UserError("no weights")

    log = []
    monkeypatch.setenv("LOCAL_RANK", "1")
    other = _shared(tmp_path, log, "other")
    thread, came = _beside(other._follow, other.select(None), check)
    first = _shared(tmp_path, log, "first")
    with pytest.raises(UserError, match="no weights"):
        first.execute(first.select(None), check)
    thread.join()
    assert came == [False] and log == []


@pytest.mark.parametrize("fails", [False, True])
def test_the_first_waits_for_the_checks_of_other_machines(tmp_path, monkeypatch, quick, fails):
    log = []

    def check():
        time.sleep(2 * heartbeat.GONE_S)
        log.append("other's check")
        if fails:
            raise UserError("no network there")

    for name, value in {"LOCAL_RANK": "0", "GROUP_RANK": "1", "GROUP_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    first, other = _shared(tmp_path, log, "first"), _shared(tmp_path, log, "other")
    thread, came = _beside(first.execute, first.select(None), lambda: None)
    if fails:
        with pytest.raises(UserError, match="no network there"):
            other._follow(other.select(None), check)
    else:
        assert other._follow(other.select(None), check)
    thread.join()
    if fails:
        assert str(came[0]) == "machine 1 of 2 has failed; what it printed says why"
        assert log == ["other's check"]
    else:
        assert came == [True] and log[0] == "other's check" and sorted(log[1:]) == ["first", "other"]


WAITS = """
import sys
from pathlib import Path
from bi_audio_dataset.schema import UserError
from visaudio.training.stages import RANK, Plan, Stage

def fails(folder):
    raise UserError("no such film")

plan = Plan(Path(sys.argv[1]), [Stage("data", "data", fails, {}, 1.0)])
class Tells(Plan):
    said = False

    def finished(self, name):
        if RANK > 0 and not self.said:  # by now it has read what an earlier run left
            print("waits", flush=True)
            self.said = True
        return super().finished(name)

plan = Tells(plan.folder, plan.stages.values())
try:
    finished = plan.execute(plan.select(None))
except UserError as error:
    print("first:", error)
    raise SystemExit(2)
print("other:", RANK, finished)
"""


@pytest.mark.slow
def test_no_process_waits_for_one_that_has_failed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(WAITS)

    def start(rank: str) -> subprocess.Popen:
        environment = {**os.environ, "RANK": rank, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, str(script), str(tmp_path)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    other = start("1")
    assert other.stdout.readline() == "waits\n"
    first = start("0")
    assert first.communicate(timeout=60)[0] == "first: no such film\n" and first.returncode == 2
    assert other.communicate(timeout=60)[0] == "other: 1 False\n"


@pytest.mark.parametrize(
    "seconds, said",
    [(45, "45 s"), (720, "12 min"), (11100, "3 h 05 min"), (12 * 86400, "12 days"), (4e9, "127 years")],
)
def test_durations_are_readable_at_every_scale(seconds, said):
    assert minutes(seconds) == said
