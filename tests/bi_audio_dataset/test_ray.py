"""Units on a real Ray of this machine: a head that does no work and two nodes, one of which is killed. What
is said to Ray, without one: test_ray_cluster.py. Needs a machine with some rest: Ray gives its own processes
15 s to start."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from fake_source import FakeSource, tiny_config
from fake_work import FakeWork, Parts
from quick_maker import digests

from bi_audio_dataset.build import build
from bi_audio_dataset.executors import Local, RayExecutor
from bi_audio_dataset.schema import UserError

ray = pytest.importorskip("ray", reason="no ray: pip install -e '.[dev]'")
pytestmark = pytest.mark.slow
PATIENCE_S = float(os.environ.get("VISAUDIO_RAY_PATIENCE_S", 180))


@dataclass(frozen=True)
class NodeSource(FakeSource):
    """Notes on which node each recording was tried; the first try of fake-1 does not end by itself."""

    folder: str = ""

    def fetch(self, recording_id: str, workdir: Path):
        first = not nodes_of(self.folder, recording_id)
        with open(os.path.join(self.folder, recording_id), "a") as handle:
            handle.write(ray.get_runtime_context().get_node_id() + "\n")
        if recording_id == "fake-1" and first:
            time.sleep(3600)
        return super().fetch(recording_id, workdir)


def nodes_of(folder: str, recording_id: str) -> list[str]:
    try:
        return Path(folder, recording_id).read_text().split()
    except FileNotFoundError:
        return []


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    before = os.environ.get("PYTHONPATH")
    own = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    os.environ["PYTHONPATH"] = os.pathsep.join([*own, before] if before else own)
    head = {"num_cpus": 0, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(2):
            cluster.add_node(wait=False, num_cpus=1)
        cluster.wait_for_nodes(timeout=PATIENCE_S)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def test_all_are_made_and_what_kills_each_try_is_in_quarantine(cluster, tmp_path):
    work = FakeWork(str(tmp_path), {"b": ("exit",) * 9, "c": ("kill",)})
    found = dict(RayExecutor(cluster.address, retries=1).run(work, ["a", "b", "c", "d"]))
    assert {name: rows[0]["decision"] for name, rows in found.items()} == {
        "a": "built",
        "b": "quarantine",
        "c": "built",
        "d": "built",
    }
    assert found["b"][0]["reasons"] == {"crashed": "WorkerCrashedError on each of 2 tries"}
    assert {name: work.tries(name) for name in "abcd"} == {"a": 1, "b": 2, "c": 2, "d": 1}
    assert not ray.is_initialized()


def test_what_a_unit_raises_stops_the_build(cluster, tmp_path):
    work = FakeWork(str(tmp_path), {"a": ("disk",), "b": ("value",)})
    with pytest.raises(OSError, match="disk full"):
        list(RayExecutor(cluster.address).run(work, ["a"]))
    with pytest.raises(UserError, match=r"a Ray worker failed on 'b' .*installed on every node"):
        list(RayExecutor(cluster.address).run(work, ["b"]))
    assert work.tries("a") == work.tries("b") == 1


def test_parts_on_a_disk_that_is_not_shared_are_noticed(cluster, tmp_path):
    work = FakeWork(str(tmp_path), parts=Parts("/nowhere"))
    with pytest.raises(UserError, match="the part of 'a' is not at '/nowhere' .* that all nodes share"):
        list(RayExecutor(cluster.address).run(work, ["a"]))


def test_node_that_dies_with_a_unit_costs_no_recording_and_no_byte(cluster, tmp_path):
    """Last, as it takes a node away."""
    notes = tmp_path / "notes"
    notes.mkdir()
    source = NodeSource((30.0, -60.0, 100.0, 20.0), folder=str(notes))
    executor = RayExecutor(cluster.address)
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(
            build, source, tmp_path / "ray", tiny_config(), progress=False, executor=executor
        )
        deadline = time.monotonic() + PATIENCE_S
        while not nodes_of(str(notes), "fake-1"):
            assert time.monotonic() < deadline and not running.done(), running
            time.sleep(0.1)
        (there,) = nodes_of(str(notes), "fake-1")
        (node,) = [node for node in cluster.worker_nodes if node.node_id == there]
        cluster.remove_node(node, allow_graceful=False)
        result = running.result(timeout=PATIENCE_S)
    assert result.skipped == {}
    first, second = nodes_of(str(notes), "fake-1")
    assert first == there != second
    build(
        FakeSource(source.azimuths_deg), tmp_path / "local", tiny_config(), progress=False, executor=Local(1)
    )
    assert digests(tmp_path / "ray") == digests(tmp_path / "local")
