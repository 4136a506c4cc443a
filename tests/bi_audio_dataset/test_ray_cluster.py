"""What is asked of Ray and what is made of its answers, on a stand-in that has its interface; with a real
Ray: test_ray.py."""

import sys
import types

import pytest
from fake_work import FakeWork, Parts

from bi_audio_dataset.processes import ONE_THREAD
from bi_audio_dataset.ray_cluster import RayExecutor
from bi_audio_dataset.schema import UserError


class RayError(Exception):
    pass


class RayTaskError(RayError):
    def __init__(self, cause):
        super().__init__("a task failed")
        self.cause = cause


class Ray(types.SimpleNamespace):
    """Runs a task when it is asked for its result; hands out the newest first. ends: recording id -> what
    `get` raises instead."""

    def __init__(self, cpus: int = 2, **ends):
        names = ("WorkerCrashedError", "NodeDiedError", "OutOfMemoryError")
        errors = {name: type(name, (RayError,), {}) for name in names}
        exceptions = types.SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError, **errors)
        super().__init__(exceptions=exceptions, cpus=cpus, ends=ends, up=False, most=0, cancelled=[])
        self.tasks, self.asked, self.begun = {}, {}, {}

    def is_initialized(self):
        return self.up

    def init(self, **options):
        self.up, self.begun = True, options

    def shutdown(self):
        self.up = False

    def cluster_resources(self):
        return {"CPU": float(self.cpus)}

    def put(self, value):
        return value

    def remote(self, **options):
        self.asked = options

        def decorate(function):
            def remote(*arguments):
                reference = object()
                self.tasks[reference] = function, arguments
                self.most = max(self.most, len(self.tasks))
                return reference

            return types.SimpleNamespace(remote=remote)

        return decorate

    def wait(self, references, num_returns):
        assert num_returns == 1 and set(references) == set(self.tasks)
        return [references[-1]], references[:-1]

    def get(self, reference):
        function, arguments = self.tasks.pop(reference)
        end = self.ends.get(arguments[-1])
        if isinstance(end, str):
            end = getattr(self.exceptions, end)("gone")
        if end is not None:
            raise end
        return function(*arguments)

    def cancel(self, reference):
        self.cancelled.append(self.tasks[reference][1][-1])


@pytest.fixture
def run(monkeypatch, tmp_path):
    def run(ray, ids, executor=None, **more):
        monkeypatch.setitem(sys.modules, "ray", ray)
        return (executor or RayExecutor("auto")).run(FakeWork(str(tmp_path), **more), ids)

    return run


def test_each_recording_is_handed_over_once_and_a_few_at_a_time(run, tmp_path):
    ray = Ray(cpus=2)
    results = list(run(ray, list("abcdefg")))
    assert sorted(name for name, _ in results) == list("abcdefg")
    assert all(rows[0]["id"] == name for name, rows in results)
    assert ray.most == 4 and not ray.up
    assert ray.begun == {"address": "auto", "log_to_driver": False}
    assert ray.asked["num_cpus"] == 1 and ray.asked["max_retries"] == 3
    assert ray.asked["runtime_env"] == {"env_vars": ONE_THREAD}
    assert FakeWork(str(tmp_path)).tries("start") == 1  # a process keeps what it has prepared


def test_workers_limit_what_is_handed_over(run):
    ray = Ray(cpus=64)
    assert len(list(run(ray, list("abcdefg"), RayExecutor(workers=3)))) == 7
    assert ray.most == 3


def test_what_dies_on_each_try_is_in_quarantine(run):
    ray = Ray(a="WorkerCrashedError", c="NodeDiedError", d="OutOfMemoryError")
    found = {name: rows[0].get("reasons") for name, rows in run(ray, list("abcd"), RayExecutor(retries=5))}
    assert found == {
        "a": {"crashed": "WorkerCrashedError on each of 6 tries"},
        "b": None,
        "c": {"crashed": "NodeDiedError on each of 6 tries"},
        "d": {"crashed": "OutOfMemoryError on each of 6 tries"},
    }


def test_what_a_unit_raises_stops_the_build_and_calls_the_others_off(run):
    ray = Ray(b=RayTaskError(OSError(28, "disk full")))
    with pytest.raises(OSError, match="disk full"):
        list(run(ray, list("ab")))
    assert ray.cancelled == ["a"] and not ray.up
    with pytest.raises(UserError, match="a Ray worker failed on 'a' .KeyError: 'x'.: is the same version"):
        list(run(Ray(a=RayTaskError(KeyError("x"))), ["a"]))
    with pytest.raises(UserError, match="Ray could not run 'a' .no environment."):
        list(run(Ray(a=RayError("no environment")), ["a"]))


def test_part_that_this_machine_cannot_see_is_noticed(run):
    with pytest.raises(UserError, match="the part of 'a' is not at '/nowhere' .* that all nodes share"):
        list(run(Ray(), ["a"], parts=Parts("/nowhere")))


def test_a_ray_that_is_there_already_stays(run):
    ray = Ray()
    ray.init()
    list(run(ray, ["a"]))
    assert ray.up


def test_no_cluster_at_the_address_is_one_line(run):
    class Down(Ray):
        def init(self, **options):
            raise ConnectionError("nobody\nanswers")

    with pytest.raises(UserError, match="no Ray at 'auto' .nobody answers.: check --address"):
        list(run(Down(), ["a"]))
    ray = Ray()
    list(run(ray, ["a"], RayExecutor("ray://head:10001")))
    assert ray.begun == {"address": "ray://head:10001"}  # a client takes no options
