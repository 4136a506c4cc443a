"""Parts in an object store that speaks S3, over a socket: moto's server on loopback, named to s3fs as a user
names one, by environment variables."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_source import FakeSource, tiny_config
from quick_maker import QuickMaker, SpawnedSource, digests, quick_build
from test_main import write_recording

from bi_audio_dataset import unit
from bi_audio_dataset.__main__ import main
from bi_audio_dataset.build import build
from bi_audio_dataset.executors import Local
from bi_audio_dataset.review.session import ReviewSession
from bi_audio_dataset.schema import UserError
from bi_audio_dataset.shards import read_manifest, read_rows
from bi_audio_dataset.workplace import Parts, part_file

s3fs = pytest.importorskip("s3fs")
moto = pytest.importorskip("moto.server")

MINE = "s3://bucket/mine"
RECORDINGS = 9


logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request otherwise


class Server:
    """May be stopped and started again: it keeps its port and its objects."""

    def __init__(self) -> None:
        self.port, self.running = 0, None
        self.start()

    def start(self) -> None:
        if self.running is not None:
            return
        self.running = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self.running.start()
        _, self.port = self.running.get_host_and_port()

    def stop(self) -> None:
        if self.running is not None:
            self.running.stop()
            self.running = None


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def store(server, monkeypatch, tmp_path):
    """The file system of the test's own; it shares nothing with the builder's but the server."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",  # where there are no keys, do not ask the network for them
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "nobody's"),
        "AWS_CONFIG_FILE": str(tmp_path / "nobody's"),
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    fs = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
    fs.mkdir("bucket")
    yield fs
    server.start()
    fs.rm("bucket", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(unit, "ClipMaker", QuickMaker)


def objects(fs) -> list[str]:
    return sorted(name.removeprefix("bucket/") for name in fs.find("bucket"))


def spawned_build(folder: Path, parts: str | None = MINE, **more):
    source = SpawnedSource(tuple(range(RECORDINGS)), **more)
    config = tiny_config(rows_per_shard=8)
    return build(source, folder, config, executor=Local(2), parts=parts, progress=False)


def test_a_bucket_changes_no_byte_and_is_left_as_it_was(tmp_path, store, quick):
    store.pipe("bucket/mine/notes.txt", b"mine")
    quick_build(tmp_path / "plain", RECORDINGS)
    quick_build(tmp_path / "set", RECORDINGS, parts=MINE)
    assert digests(tmp_path / "set") == digests(tmp_path / "plain")
    assert objects(store) == ["mine/notes.txt"]


def test_interrupted_build_goes_on_from_the_bucket(tmp_path, store, quick, monkeypatch):
    """And its journal is lost, so that what is built is known from the bucket alone."""
    quick_build(tmp_path / "plain", RECORDINGS)
    made, make = [], QuickMaker.make

    def stops(self, recording, *rest):
        made.append(recording.recording_id)
        if len(made) == 5:
            raise MemoryError
        return make(self, recording, *rest)

    monkeypatch.setattr(QuickMaker, "make", stops)
    with pytest.raises(MemoryError):
        quick_build(tmp_path / "set", RECORDINGS, parts=MINE)
    assert objects(store) == ["mine/build.json", *(f"mine/fake-{i}.parquet" for i in range(4))]
    (tmp_path / "set/.work/journal.jsonl").unlink()
    quick_build(tmp_path / "set", RECORDINGS)
    assert made[5:] == [f"fake-{i}" for i in range(4, RECORDINGS)]
    assert digests(tmp_path / "set") == digests(tmp_path / "plain")
    assert objects(store) == []


def test_a_part_that_another_process_has_replaced_is_read_as_it_is_now(store):
    """s3fs keeps listings, with sizes and ETags, which another's put makes wrong."""
    parts = Parts(MINE)
    with parts.writing("a/b c%é") as path:
        path.write_bytes(b"first")
    assert parts.sizes() == {"a%2Fb%20c%25%C3%A9.parquet": 5}
    store.pipe(parts.locate("a/b c%é"), b"second and longer")
    with part_file(parts.locate("a/b c%é")) as handle:
        assert handle.read() == b"second and longer"
    assert read_manifest(parts.locate("a/b c%é")) is None  # no Parquet file, which is no fault of the store
    store.rm(parts.locate("a/b c%é"))
    assert not parts.exists("a/b c%é")


@pytest.mark.slow
def test_workers_reach_it_and_a_killed_build_goes_on(tmp_path, store, quick):
    """kill -9 of the build while one of its two workers is at work; the environment reaches both of them."""
    quick_build(tmp_path / "plain", RECORDINGS)
    folder, holds = tmp_path / "set", tmp_path / "holds"
    holds.touch()
    script = (
        "from pathlib import Path; from test_stores import spawned_build\n"
        "if __name__ == '__main__':\n"
        f"    spawned_build(Path({str(folder)!r}), held='fake-4', holds={str(holds)!r})\n"
    )
    (tmp_path / "script.py").write_text(script)
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    killed = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py")], env={**os.environ, "PYTHONPATH": paths}
    )
    built = [f"mine/fake-{i}.parquet" for i in (0, 1, 2, 3, 5, 6)]  # 7 and 8 are no recordings to use
    deadline = time.monotonic() + 120
    while not set(built) <= set(objects(store)):
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert objects(store) == ["mine/build.json", *built] and not (folder / "data").exists()
    before = {name: store.info(f"bucket/{name}")["LastModified"] for name in built}
    holds.unlink()

    class Kept(Local):
        def run(self, work, recording_ids):
            asked.extend(recording_ids)
            return super().run(work, recording_ids)

    asked: list[str] = []
    source = SpawnedSource(tuple(range(RECORDINGS)))
    build(source, folder, tiny_config(rows_per_shard=8), executor=Kept(2), progress=False)
    assert len(before) == 6 and asked == ["fake-4", "fake-7", "fake-8"]
    assert digests(folder) == digests(tmp_path / "plain")
    assert objects(store) == []


@pytest.mark.slow
def test_real_clips_through_a_bucket(tmp_path, store):
    source, config = FakeSource((30.0, -60.0)), tiny_config()
    build(source, tmp_path / "plain", config, executor=Local(1), progress=False)
    build(source, tmp_path / "set", config, executor=Local(2), parts=MINE, progress=False)
    assert digests(tmp_path / "set") == digests(tmp_path / "plain")
    assert objects(store) == []


def synth(folder: Path, parts: str = MINE) -> int:
    return main(["synth", "--clips", "1", "--output", str(folder), "--parts", parts])


@pytest.mark.slow
def test_reviewed_build_through_a_bucket(tmp_path, store, capsys):
    """By the command line: workers put clips and evidence there, queue and rows come from there."""
    films, folder = tmp_path / "films", tmp_path / "set"
    films.mkdir()
    write_recording(films, "walk")
    write_recording(films, "run", azimuth_deg=-70.0)
    command = [
        "build",
        str(films),
        "--clip-s",
        "1",
        "--size",
        "64x32",
        "--workers",
        "2",
        "--mark",
        "weak_cue",
    ]
    assert main([*command, "--output", str(tmp_path / "plain")]) == 0
    assert main([*command, "--output", str(folder), "--review", "--parts", MINE]) == 0
    assert objects(store) == [f"mine/{name}" for name in ("build.json", "run.parquet", "walk.parquet")]
    names = sorted(path.name for path in (folder / "review/evidence").iterdir())
    assert names == ["run.0.npz", "walk.0.npz"]
    capsys.readouterr()
    assert main(["review", str(folder), "--queue"]) == 0
    assert {line.split("\t")[0] for line in capsys.readouterr().out.splitlines()[1:]} == {"run", "walk"}
    assert not (folder / ".work/cache").exists()  # the queue needs no media
    session = ReviewSession(folder, "eva")
    assert "No panorama" not in session.view("walk").facts
    session.close()
    assert len(list((folder / ".work/cache").iterdir())) == 1
    captions = tmp_path / "captions.csv"
    captions.write_text('id,caption\nrun,"Visible sound: a drum, Invisible sound: none"\n')
    assert main(["caption", str(folder), "--from", str(captions)]) == 0
    assert main(["finalize", str(folder)]) == 0
    assert objects(store) == [] and not (folder / ".work").exists()
    told, plain = (
        {row["id"]: row for path in (tmp_path / name / "data").iterdir() for row in read_rows(path)}
        for name in ("set", "plain")
    )
    assert told["run"].pop("caption") == "Visible sound: a drum, Invisible sound: none"
    plain["run"].pop("caption")
    assert told == plain


@pytest.mark.slow
def test_wrong_bucket_is_one_line_and_may_be_corrected(tmp_path, store, quick, capsys):
    assert synth(tmp_path / "set", "s3://nobody/mine") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "'s3://nobody/mine' cannot be used (not found: The specified bucket does not exist)" in line
    assert synth(tmp_path / "set") == 0
    assert objects(store) == [] and (tmp_path / "set/data").is_dir()


def test_no_credentials_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert synth(tmp_path / "set") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"'{MINE}' cannot be used (Unable to locate credentials): check the address and the access" in line


def test_without_s3fs_one_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(
        sys.modules["fsspec.registry"]._registry, "s3", raising=False
    )  # it was imported above
    assert synth(tmp_path / "set") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "s3:// needs a package that is missing" in line and "pip install 'visaudio[s3]'" in line


@pytest.mark.slow
def test_server_that_goes_is_one_line_wherever_it_goes_and_the_build_goes_on(
    tmp_path, server, store, quick, monkeypatch, capsys
):
    """Before the first part, between two of them, and when the shards are gathered."""
    quick_build(tmp_path / "plain", RECORDINGS)
    gone = f"'{MINE}' cannot be used \\(Could not connect to the endpoint URL"
    server.stop()
    capsys.readouterr()
    assert synth(tmp_path / "other") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert gone.replace("\\", "") in line
    server.start()

    made, make = [], QuickMaker.make

    def goes(self, recording, *rest):
        made.append(recording.recording_id)
        if len(made) == 4:
            server.stop()
        return make(self, recording, *rest)

    monkeypatch.setattr(QuickMaker, "make", goes)
    folder = tmp_path / "set"
    with pytest.raises(UserError, match=gone):
        quick_build(folder, RECORDINGS, parts=MINE)
    server.start()
    assert len(objects(store)) == 1 + 3

    from bi_audio_dataset import finalize

    write = finalize.write_shards

    def goes_later(*arguments):
        server.stop()
        return write(*arguments)

    monkeypatch.setattr(finalize, "write_shards", goes_later)
    with pytest.raises(UserError, match=gone):
        quick_build(folder, RECORDINGS)
    server.start()
    assert len(objects(store)) == 1 + 7 and not (folder / "data").exists()

    monkeypatch.setattr(finalize, "write_shards", write)
    quick_build(folder, RECORDINGS)
    assert made[4:] == [f"fake-{i}" for i in (3, 4, 5, 6, 7, 8, 7, 8)]
    assert digests(folder) == digests(tmp_path / "plain")
    assert objects(store) == []
