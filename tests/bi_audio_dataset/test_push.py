import dataclasses
import inspect

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_hub import FakeHub
from huggingface_hub import HfApi
from quick_maker import QuickMaker, quick_build

from bi_audio_dataset import card_plots, removals, unit
from bi_audio_dataset import push as push_module
from bi_audio_dataset.__main__ import main
from bi_audio_dataset.push import push
from bi_audio_dataset.remove import remove
from bi_audio_dataset.schema import ClipRecord, UserError
from bi_audio_dataset.shards import read_rows, write_rows

REPO = "ann/set"
TRAIN = "data/train-00000-of-00002.parquet"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """13 clips in three shards, and what lies beside them but is nobody else's business."""
    monkeypatch.setattr(unit, "ClipMaker", QuickMaker)
    monkeypatch.setattr(card_plots, "draw", lambda *_: [])  # matplotlib would take most of the time
    folder = tmp_path / "set"
    quick_build(folder, 8)
    (folder / "decisions.jsonl").write_text("")
    (folder / "removals.jsonl").write_text("")
    (folder / "review").mkdir()
    (folder / "review/secret.txt").write_text("names")
    return folder


def files_of(folder) -> dict[str, bytes]:
    shards = {f"data/{path.name}": path.read_bytes() for path in (folder / "data").iterdir()}
    about = {name: (folder / name).read_bytes() for name in ("README.md", "build.json", "manifest.jsonl")}
    shown = {
        f"assets/{path.name}": path.read_bytes()
        for path in sorted((folder / "assets").glob("*"))
        if f"assets/{path.name}" in about["README.md"].decode()
    }
    return shards | about | shown


def visible(hub, branch="main") -> dict[str, bytes]:
    return {name: content for name, content in hub.branches[branch].items() if name != ".gitattributes"}


def test_all_of_it_and_nothing_else_appears_in_one_commit(folder):
    hub = FakeHub()
    (folder / "assets").mkdir(exist_ok=True)
    (folder / "assets/mine.png").write_bytes(b"not on the card")
    (folder / "assets/shown.png").write_bytes(b"on the card")
    with open(folder / "README.md", "a") as card:
        card.write("\n![levels](assets/shown.png)\n")
    done = push(folder, REPO, api=hub)
    assert visible(hub) == files_of(folder) and "assets/shown.png" in visible(hub)
    assert len(hub.commits) == 1 and set(hub.commits[0]) == set(done.sent) == set(files_of(folder))
    assert done.url == "https://hub/ann/set/1" and done.deleted == () and hub.private is False

    again = push(folder, REPO, api=hub)
    assert len(hub.commits) == 1 and again.sent == () and set(again.kept) == set(files_of(folder))


class Checked:
    """A FakeHub that takes only calls which the real HfApi would take."""

    def __init__(self, hub):
        self.hub = hub
        self.called = set()

    def __getattr__(self, name):
        def call(*arguments, **options):
            inspect.signature(getattr(HfApi, name)).bind(self, *arguments, **options)
            self.called.add(name)
            return getattr(self.hub, name)(*arguments, **options)

        return call


def test_calls_are_those_of_the_installed_huggingface_hub(folder):
    checked = Checked(FakeHub())
    push(folder, REPO, private=True, revision="v2", api=checked)
    assert visible(checked.hub, "v2") == files_of(folder)
    assert checked.called >= {
        "whoami",
        "create_repo",
        "create_branch",
        "preupload_lfs_files",
        "create_commit",
    }


def test_a_hub_that_cannot_be_asked_is_one_line(folder):
    hub = FakeHub()
    hub.whoami = lambda: (_ for _ in ()).throw(ConnectionError("no\nroute"))
    refused(folder, "the Hub does not say whose token this is .ConnectionError: no route.", hub)


def test_interrupted_push_shows_nothing_and_goes_on(folder, monkeypatch):
    monkeypatch.setattr(push_module, "GROUP_FILES", 2)
    hub = FakeHub(dies_after=2)
    with pytest.raises(UserError, match="cannot push to 'ann/set': ConnectionError: the line broke"):
        push(folder, REPO, api=hub)
    assert len(hub.uploads) == 2 and visible(hub) == {}
    hub.dies_after = None
    push(folder, REPO, api=hub)
    assert visible(hub) == files_of(folder)
    assert sorted(hub.uploads) == sorted(name for name in files_of(folder) if name.endswith(".parquet"))


def test_only_what_changed_is_sent_and_what_left_is_deleted(folder):
    hub = FakeHub()
    push(folder, REPO, api=hub)
    hub.branches["main"] |= {"data/train-00000-of-00009.parquet": b"old", "LICENSE": b"theirs"}
    gone = [row["id"] for row in read_rows(folder / TRAIN)][0]
    remove(folder, {gone: "its author asked"})
    done = push(folder, REPO, api=hub)
    assert done.deleted == ("data/train-00000-of-00009.parquet",)
    assert "LICENSE" in visible(hub)
    assert {name: visible(hub)[name] for name in files_of(folder)} == files_of(folder)
    assert "build.json" in done.kept and "manifest.jsonl" in done.sent and TRAIN in done.sent
    assert len(hub.commits) == 2


def test_many_files_take_several_commits_with_the_card_in_the_last(folder, monkeypatch):
    monkeypatch.setattr(push_module, "COMMIT_FILES", 2)
    hub = FakeHub()
    hub.create_repo(REPO, repo_type="dataset", exist_ok=True)
    hub.branches["main"]["data/test-00000-of-00007.parquet"] = b"old"
    push(folder, REPO, api=hub)
    assert visible(hub) == files_of(folder)
    assert len(hub.commits) >= 3 and hub.commits[0][0] == "data/test-00000-of-00007.parquet"
    assert not any(name.endswith(".parquet") for name in hub.commits[-1])


def test_branch_and_privacy(folder):
    hub = FakeHub()
    push(folder, REPO, private=True, revision="v2", api=hub)
    assert hub.private is True and visible(hub) == {} and visible(hub, "v2") == files_of(folder)
    hub.private = False
    with pytest.raises(UserError, match="'ann/set' is there already and public"):
        push(folder, REPO, private=True, api=hub)
    assert len(hub.commits) == 1


def refused(folder, match, hub=None, **more):
    hub = hub or FakeHub()
    with pytest.raises(UserError, match=match) as error:
        push(folder, more.pop("repository", REPO), api=hub, **more)
    assert hub.branches == {} and "\n" not in str(error.value)


def test_no_token_no_push(folder):
    refused(
        folder, "no token of the Hugging Face Hub: run `hf auth login`, or set HF_TOKEN", FakeHub(token=None)
    )


def test_repository_needs_an_owner(folder):
    refused(folder, "repository is 'set', expected OWNER/NAME", repository="set")


def change_first(folder, **changes):
    records = [ClipRecord.from_row(row) for row in read_rows(folder / TRAIN)]
    records[0] = dataclasses.replace(records[0], **changes)
    write_rows(folder / TRAIN, records)
    return records[0].id


def test_what_does_not_validate_is_refused(folder):
    change_first(folder, caption="")
    refused(folder, "does not pass `validate --quick` .1 problems.: .*caption is empty")
    (folder / "build.json").unlink()
    refused(folder, "holds no build.json")


def test_licence_that_forbids_copies_is_refused_with_counts_and_the_way_out(folder):
    clip_id = change_first(folder, licence="CC-BY-ND-4.0")
    refused(folder, rf"1 clips may not be passed on .*1 of 'CC-BY-ND-4.0', e.g. {clip_id}; .*--recipe FILE")
    records = [ClipRecord.from_row(row) for row in read_rows(folder / TRAIN)]
    write_rows(folder / TRAIN, [dataclasses.replace(record, licence="unknown") for record in records])
    count = len(records)
    assert count > 1
    refused(folder, rf"{count} clips may not be passed on with their media \({count} of 'unknown'")


def test_clips_on_the_removal_list_are_refused_until_they_are_taken_out(folder, tmp_path):
    clip_id = next(read_rows(folder / TRAIN))["id"]
    (tmp_path / "list.txt").write_text(clip_id)
    refused(
        folder,
        f"holds 1 clips that are on the removal list .{clip_id}.",
        more_removals=[tmp_path / "list.txt"],
    )
    removals.append(folder, {clip_id: "why"})
    refused(folder, f"1 clips .*{clip_id}.*take them out by `remove")
    remove(folder)
    hub = FakeHub()
    push(folder, REPO, api=hub)
    assert visible(hub) == files_of(folder)


def test_features_of_clips_that_left_are_refused(folder):
    (folder / "features").mkdir()
    path = folder / "features/train-00000-of-00001.parquet"
    clip_id = next(read_rows(folder / TRAIN))["id"]
    pq.write_table(pa.table({"id": [clip_id, "gone"], "x": [1.0, 2.0]}), path)
    refused(folder, "holds 1 clips that are not in the dataset, e.g. gone")
    pq.write_table(pa.table({"id": [clip_id], "x": [1.0]}), path)
    hub = FakeHub()
    push(folder, REPO, api=hub)
    assert visible(hub)["features/train-00000-of-00001.parquet"] == path.read_bytes()


def test_command_is_one_line_and_2_without_a_dataset(tmp_path, capsys):
    assert main(["push", str(tmp_path), "--repo", REPO]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and "holds no data/*.parquet" in error


def test_command_pushes_by_the_users_own_api(folder, capsys, monkeypatch):
    import huggingface_hub

    hub = FakeHub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    assert main(["push", str(folder), "--repo", REPO, "--private"]) == 0
    assert visible(hub) == files_of(folder) and hub.private is True
    told = capsys.readouterr().out
    assert told == f"https://hub/ann/set/1: {len(files_of(folder))} files sent, 0 there already, 0 deleted\n"
