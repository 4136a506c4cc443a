"""Parts in a dataset repository: huggingface_hub's own file system, over a socket, against hub_server.py."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hub_server import HubServer
from quick_maker import QuickMaker, digests, quick_build

from bi_audio_dataset import unit

MINE = "hf://datasets/ann/parts/mine"
BUILT = [f"mine/fake-{i}.parquet" for i in (0, 1, 2, 3, 4, 5, 6)]
SCRIPT = """
import sys
from pathlib import Path
from test_hub_parts import MINE
from quick_maker import SpawnedSource, tiny_config
from bi_audio_dataset.build import build
from bi_audio_dataset.executors import Local
from bi_audio_dataset.schema import UserError

if __name__ == "__main__":
    source = SpawnedSource(tuple(range(9)), held="fake-4", holds=sys.argv[2])
    config = tiny_config(rows_per_shard=8)
    try:
        build(source, Path(sys.argv[1]), config, executor=Local(2), parts=MINE, progress=False)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
"""


@pytest.fixture
def hub():
    hub = HubServer()
    hub.make("ann/parts", "datasets")
    yield hub
    hub.close()


@pytest.fixture
def start(tmp_path, hub):
    """A build in a process of its own: huggingface_hub reads its environment when it is imported."""
    (tmp_path / "script.py").write_text(SCRIPT)
    paths = os.pathsep.join(str(Path(__file__).parents[up]) for up in (0, 1, 2))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    more = {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": "hf_x",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(tmp_path / "home"),
        "PYTHONPATH": paths,
    }

    def start(folder, **environment):
        command = [sys.executable, str(tmp_path / "script.py"), str(folder), str(tmp_path / "holds")]
        return subprocess.Popen(command, env=clean | more | environment, stderr=subprocess.PIPE, text=True)

    return start


@pytest.mark.slow
def test_killed_and_gone_on_the_bytes_are_those_of_a_local_build(tmp_path, hub, start, monkeypatch):
    monkeypatch.setattr(unit, "ClipMaker", QuickMaker)
    quick_build(tmp_path / "plain", 9)
    repository = hub.repositories["datasets", "ann/parts"]
    repository.put({"mine/notes.txt": b"mine"})
    holds, folder = tmp_path / "holds", tmp_path / "set"
    holds.touch()
    killed, deadline = start(folder), time.monotonic() + 120
    before = ["mine/build.json", *(name for name in BUILT if name != "mine/fake-4.parquet"), "mine/notes.txt"]
    while sorted(repository.files) != before:
        assert killed.poll() is None and time.monotonic() < deadline, killed.stderr.read()
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    done = len(repository.log)
    assert done == 1 + 6 and not (folder / "data").exists()
    holds.unlink()
    process = start(folder)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert digests(folder) == digests(tmp_path / "plain")
    assert repository.log[done] == [("lfsFile", "mine/fake-4.parquet")]  # the one that was missing
    assert {key for commit in repository.log[done + 1 :] for key, _ in commit} == {"deletedFile"}
    assert repository.files == {"mine/notes.txt": b"mine"}


@pytest.mark.slow
def test_wrong_token_is_one_line(tmp_path, hub, start):
    process = start(tmp_path / "set", HF_TOKEN="hf_other")
    _, errors = process.communicate(timeout=120)
    (line,) = errors.splitlines()
    assert process.returncode == 2 and line.startswith(f"error: '{MINE}' cannot be used (")
    assert hub.repositories["datasets", "ann/parts"].log == []
