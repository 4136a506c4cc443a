"""A built dataset, pushed to a Hub and loaded from it by `datasets`, over a socket (tests/hub_server.py)."""

import json

import fake_sets
import pytest
from hub_client import HubClient
from hub_world import TOKEN

from bi_audio_dataset import card_plots
from bi_audio_dataset.__main__ import main

pytestmark = pytest.mark.slow
PUSH = """
from bi_audio_dataset.__main__ import main
result = main(["push", folder, "--repo", "org/BiAudio", *more])
"""
LOAD = """
import datasets
sets = datasets.load_dataset("org/BiAudio", cache_dir=cache, **more)
row = next(iter(sets["test"]))
result = {
    "ids": {split: [row["id"] for row in rows] for split, rows in sets.items()},
    "types": {name: repr(kind) for name, kind in sets["test"].features.items() if name in ("audio", "video")},
    "heads": [row["video"]["bytes"][4:8].decode(), row["audio"]["bytes"][:4].decode()],
    "caption": row["caption"],
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(card_plots, "draw", fake_sets.draw_quickly)
        folder = fake_sets.make_set(tmp_path_factory.mktemp("built") / "set", fake_sets.rows(3))
        assert main(["card", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def pushed(world, folder):
    assert world.right(PUSH, folder=str(folder), more=[]) == 0
    return world.hub.repositories["datasets", "org/BiAudio"]


def test_shards_go_by_lfs_and_arrive_as_they_are(pushed, folder):
    shards = {f"data/{path.name}": path.read_bytes() for path in (folder / "data").iterdir()}
    assert shards.items() <= pushed.files.items() and len(shards) == 3
    assert {kind for commit in pushed.log for kind, name in commit if name in shards} == {"lfsFile"}
    assert not [name for name, content in pushed.files.items() if TOKEN.encode() in content]


@pytest.mark.parametrize("more", [{}, {"streaming": True}, {"revision": "main"}], ids=str)
def test_load_dataset_gives_typed_rows(world, pushed, more):
    found = world.right(LOAD, more=more, cache=world.root / "datasets")
    assert found["ids"] == {"train": ["c0-0", "c1-0"], "test": ["c2-0"]}
    assert found["heads"] == ["ftyp", "fLaC"]
    assert found["types"]["audio"].startswith("Audio(") and found["types"]["video"].startswith("Video(")


def test_pushed_again_nothing_is_sent(world, pushed, folder):
    commits = len(pushed.log)
    assert world.right(PUSH, folder=str(folder), more=[]) == 0
    assert len(pushed.log) == commits


def test_a_branch_and_our_own_reader(world, pushed, folder):
    assert world.right(PUSH, folder=str(folder), more=["--revision", "v2"]) == 0
    assert pushed.at("v2") == pushed.at("main")
    code = (
        "from visaudio.data.dataset import open_dataset\n"
        "result = sorted(open_dataset('org/BiAudio', ['train'])['id'])"
    )
    assert world.right(code) == ["c0-0", "c1-0"]
    # what was read once is read from the cache where nobody answers, after a second
    client = HubClient("http://127.0.0.1:9", world.root / "home", TOKEN)
    try:
        answer = client.run(code)
    finally:
        client.close()
    assert answer.error is None and answer.value == ["c0-0", "c1-0"], answer
    assert "Retrying" not in answer.output


def test_without_the_right_or_without_a_line_it_is_one_line(world, pushed, folder):
    world.right("os.environ['HF_TOKEN'] = 'hf_stranger'")
    answer = world.run(PUSH, folder=str(folder), more=[])
    assert answer.value == 2 and answer.output.startswith("error: ") and answer.output.count("\n") == 1
    world.right("os.environ['HF_TOKEN'] = token", token=TOKEN)
    code = "from bi_audio_dataset.schema import UserError\nimport datasets\n"
    answer = world.run(code + LOAD, "offline", cache=world.root / "nothing")
    assert answer.error and json.dumps("org/BiAudio").strip('"') in answer.error
