"""Executors, on work that dies in every way that a decoder or the kernel knows."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_source import FakeSource, tiny_config
from fake_work import FakeWork

from bi_audio_dataset import processes
from bi_audio_dataset.build import build
from bi_audio_dataset.executors import Inline, Local, RayExecutor, choose
from bi_audio_dataset.schema import UserError
from bi_audio_dataset.shards import read_rows


def run(executor, work, ids) -> dict[str, list[dict]]:
    results = list(executor.run(work, ids))
    assert sorted(name for name, _ in results) == sorted(ids)  # each of them once
    return dict(results)


def test_a_death_stops_neither_the_others_nor_the_build(tmp_path):
    deeds = {
        "b": ("segfault", "segfault"),  # always
        "c": ("kill",),  # once
        "d": ("exit", "memory"),
        "e": ("memory",),
    }
    work = FakeWork(str(tmp_path), deeds)
    found = run(Local(2), work, list("abcdef"))
    why = {name: rows[0].get("reasons", {}).get("crashed") for name, rows in found.items()}
    died = "the worker process died twice on this recording"
    assert why == {
        "a": None,
        "b": f"{died} (SIGSEGV)",
        "c": None,
        "d": f"{died} (exit code 9, then out of memory)",
        "e": None,
        "f": None,
    }
    assert {name: work.tries(name) for name in "abcdef"} == dict(a=1, b=2, c=2, d=2, e=2, f=1)
    for name in "bcde":  # the second try is a process that has made nothing before
        first, second = work.processes(name)
        assert first != second
        others = [process for other in "abcdef" if other != name for process in work.processes(other)]
        assert second not in others or work.deeds[name][1:] == ()
    # two at first, one after each of four first deaths; after the two second deaths only while enough is
    # left to do for one more, which depends on how far the other has come
    assert 2 + 4 <= work.tries("start") <= 2 + 6


def test_what_a_unit_raises_stops_the_build(tmp_path):
    work = FakeWork(str(tmp_path), {"b": ("disk",)})
    with pytest.raises(OSError, match="disk full"):
        run(Local(1), work, ["a", "b", "c"])
    assert work.tries("b") == 1 and work.tries("c") == 0


def test_an_exception_that_does_not_pickle_is_told(tmp_path):
    with pytest.raises(RuntimeError, match="Odd: very odd"):
        run(Local(1), FakeWork(str(tmp_path), {"a": ("odd",)}), ["a"])


def test_workers_that_never_start_are_no_fault_of_the_recordings(tmp_path):
    work = FakeWork(str(tmp_path), {"start": ("exit",) * 3})
    with pytest.raises(UserError, match=r"die before they have started \(exit code 9\)"):
        run(Local(1), work, ["a", "b"])
    assert work.tries("start") == 3 and work.tries("a") == 0


def test_leaving_early_leaves_no_process_behind(tmp_path):
    work = FakeWork(str(tmp_path), {"b": ("wait",)})
    results = Local(2).run(work, ["b", "a"])
    assert next(results)[0] == "a"
    while not work.tries("b"):
        time.sleep(0.01)
    results.close()
    for process in {*work.processes("a"), *work.processes("b")}:
        assert not Path("/proc", process).exists()


def test_workers_die_with_their_build(tmp_path):
    """kill -9 of the parent, while a unit waits in its worker."""
    script = (
        "from bi_audio_dataset.executors import Local; from fake_work import FakeWork\n"
        "if __name__ == '__main__':\n"
        f"    list(Local(1).run(FakeWork({str(tmp_path)!r}, {{'a': ('wait',)}}), ['a']))\n"
    )
    (tmp_path / "script.py").write_text(script)
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py")], env={**os.environ, "PYTHONPATH": paths}
    )
    work, deadline = FakeWork(str(tmp_path)), time.monotonic() + 120
    while not work.processes("a"):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    (worker,) = work.processes("a")
    process.send_signal(signal.SIGKILL)
    process.wait()
    while is_running(worker):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(process: str) -> bool:
    try:  # a zombie, which an init that does not reap leaves, does not run
        return Path("/proc", process, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_inline_gives_rows_in_order(tmp_path):
    results = list(Inline().run(FakeWork(str(tmp_path)), ["b", "a"]))
    assert [name for name, _ in results] == ["b", "a"]
    assert {rows[0]["by"] for _, rows in results} == {os.getpid()}


def test_environment_is_for_workers_alone(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with processes._environment(processes.ONE_THREAD):
        assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == "1"
    assert os.environ["OMP_NUM_THREADS"] == "7" and "MKL_NUM_THREADS" not in os.environ


def test_choice_of_the_command_line():
    assert choose() == Local(1) and choose("local", 3) == Local(3)
    assert choose("ray", None, "auto") == RayExecutor("auto", None)
    with pytest.raises(UserError, match="--address is a Ray cluster's"):
        choose("local", 1, "auto")
    with pytest.raises(UserError, match="no executor 'slurm': expected one of local, ray"):
        choose("slurm")


def test_without_ray_one_line_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"--executor ray needs Ray: pip install 'visaudio\[ray\]'"):
        list(RayExecutor().run(FakeWork(str(tmp_path)), ["a"]))


@pytest.mark.slow
def test_recording_that_kills_its_worker_is_in_quarantine_and_the_rest_is_built(tmp_path):
    result = build(FakeSource(deadly=(1,)), tmp_path / "set", tiny_config(), workers=1, progress=False)
    why = "the worker process died twice on this recording (exit code 9)"
    assert result.skipped == {"fake-1": why}
    rows = [row["id"] for shard in (tmp_path / "set/data").glob("*") for row in read_rows(shard)]
    assert sorted(rows) == ["fake-0", "fake-2"]
    manifest = (tmp_path / "set/manifest.jsonl").read_text()
    assert '"reasons": {"crashed": "the worker process died twice' in manifest
