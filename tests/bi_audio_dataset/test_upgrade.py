"""Datasets of an older version, here a made-up version 0 (fake_sets.py), brought to this one."""

import fcntl
import itertools
import os
import shutil
import signal
from pathlib import Path

import fake_clips
import fake_sets
import pytest

from bi_audio_dataset import card_plots, migrations
from bi_audio_dataset import upgrade as upgrade_module
from bi_audio_dataset.__main__ import main
from bi_audio_dataset.schema import UserError
from bi_audio_dataset.shards import read_manifest, read_rows, write_rows
from bi_audio_dataset.upgrade import upgrade
from bi_audio_dataset.validate import validate


@pytest.fixture(autouse=True)
def version_0(monkeypatch):
    step = migrations.Step("fov is called hfov_deg", fake_sets.from_version_0)
    monkeypatch.setitem(migrations.STEPS, 0, step)
    monkeypatch.setattr(card_plots, "draw", fake_sets.draw_quickly)


@pytest.fixture(scope="module")
def current(tmp_path_factory) -> Path:
    """A set of this version with synthetic scenes and features below it."""
    folder = tmp_path_factory.mktemp("current") / "set"
    clips = fake_sets.rows(3, truth={"rate_hz": 25.0, "sources": [fake_clips.truth_source()]})
    (folder / "synth").mkdir(parents=True)
    fake_sets.features(folder, clips)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(card_plots, "draw", fake_sets.draw_quickly)
        synth = fake_sets.rows(2, source_name="BiAudio-Synth")
        fake_sets.make_set(folder / "synth", synth, "BiAudio-Synth")
        return fake_sets.make_set(folder, clips)


@pytest.fixture
def old(current, tmp_path) -> Path:
    return fake_sets.set_to_version_0(shutil.copytree(current, tmp_path / "old"))


def test_upgraded_in_place_it_has_the_bytes_of_a_fresh_build(current, old, capsys):
    assert fake_sets.digests(old) != fake_sets.digests(current)
    assert main(["finalize", str(old)]) == 2
    assert (
        "has schema_version 0, this program reads 2: python -m bi_audio_dataset upgrade"
        in capsys.readouterr().err
    )
    assert validate(old, media=False).problems[0].endswith("columns missing: hfov_deg, hrir_symmetric")
    assert main(["upgrade", str(old)]) == 0
    assert validate(old, media=False).problems == []
    told = capsys.readouterr().out
    assert "0 -> 1: fov is called hfov_deg" in told and "5 clips upgraded to schema_version 2" in told
    assert fake_sets.digests(old) == fake_sets.digests(current)
    assert main(["upgrade", str(old)]) == 0
    assert "schema_version 2, nothing to do" in capsys.readouterr().out
    assert fake_sets.digests(old) == fake_sets.digests(current)


def test_into_another_folder_the_old_one_stays(current, old, tmp_path):
    (old / "removed.txt").write_text("c9-0\n")
    before = fake_sets.digests(old)
    done = upgrade(old, tmp_path / "new")
    assert (done.clips, done.versions) == (5, {0})
    assert fake_sets.digests(old) == before
    assert (tmp_path / "new/removed.txt").read_text() == "c9-0\n"
    (tmp_path / "new/removed.txt").unlink()
    assert fake_sets.digests(tmp_path / "new") == fake_sets.digests(current)
    with pytest.raises(UserError, match="is not empty: choose an empty or new folder"):
        upgrade(old, tmp_path / "new")


def test_only_what_is_old_is_rewritten(current, old):
    shutil.rmtree(old / "synth")
    shutil.copytree(current / "synth", old / "synth")
    shard = sorted((old / "synth/data").iterdir())[0]
    stamp = shard.stat().st_mtime_ns
    assert upgrade(old).clips == 3
    assert shard.stat().st_mtime_ns == stamp


def test_clips_that_wait_for_finalize_are_upgraded_with_what_was_decided(tmp_path):
    from test_schema import make_record

    part = tmp_path / "set/.work/parts/a.parquet"
    part.parent.mkdir(parents=True)
    record = make_record(hrir_symmetric=False, direction=None)
    write_rows(part, [record], [{"kind": "recording", "id": "a"}])
    fresh = part.read_bytes()
    fake_sets.to_version_0(part)
    (tmp_path / "set/build.json").write_text('{"schema_version": 0, "source": {"name": "fake"}}')
    assert upgrade(tmp_path / "set").clips == 1
    assert part.read_bytes() == fresh
    assert read_manifest(part) == [{"kind": "recording", "id": "a"}]
    assert '"schema_version": 2' in (tmp_path / "set/build.json").read_text()
    assert sorted(p.name for p in (tmp_path / "set/.work").iterdir()) == ["lock", "parts"]
    with pytest.raises(UserError, match="holds no data"):
        upgrade(tmp_path / "set", tmp_path / "new")


def test_clips_that_lie_elsewhere_are_not_passed_over(old):
    (old / ".work").mkdir()
    (old / ".work/parts_at").write_text("s3://bucket/parts")
    with pytest.raises(UserError, match="wait lie at s3://bucket/parts: finalize them"):
        upgrade(old)


def version_of(folder: Path, version: int) -> Path:
    clips = fake_sets.rows(1)
    return fake_clips.dataset(folder, [clip | {"schema_version": version} for clip in clips])


def test_unknown_versions_are_one_line(tmp_path, capsys):
    newer, older = version_of(tmp_path / "newer", 7), version_of(tmp_path / "older", -3)
    before = fake_sets.digests(newer)
    assert main(["upgrade", str(newer)]) == 2
    assert capsys.readouterr().err == (
        f"error: '{newer}' has schema_version 7, this program writes 2: install a newer visaudio, or use the "
        "program that wrote it\n"
    )
    assert fake_sets.digests(newer) == before
    assert main(["upgrade", str(older)]) == 2
    assert "has schema_version -3, this program writes 2 and upgrades from 0 on" in capsys.readouterr().err


def test_what_cannot_be_upgraded_is_said(current, old, tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        upgrade(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no data"):
        upgrade(tmp_path / "empty")
    with pytest.raises(UserError, match="itself: leave it out"):
        upgrade(old, old)
    with pytest.raises(UserError, match="lies inside the dataset"):
        upgrade(old, old / "new")
    with pytest.raises(UserError, match="of schema_version 2 already"):
        upgrade(current, tmp_path / "new")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/a.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        upgrade(old, tmp_path / "thesis")
    shard = sorted((old / "data").iterdir())[0]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:500])
    with pytest.raises(UserError, match="is not a whole Parquet file"):
        upgrade(old)
    shard.write_bytes(whole)
    (old / ".work").mkdir()
    with open(old / ".work/lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        shutil.rmtree(old / "synth")
        with pytest.raises(UserError, match="at work in another process"):
            upgrade(old)


def test_a_step_that_fails_leaves_the_old_set_whole(old, monkeypatch):
    before = fake_sets.digests(old / "data")

    def fails_at_the_last(row, said):
        if row["id"] == "c2-0":
            raise KeyError("fov")
        return fake_sets.from_version_0(row, said)

    monkeypatch.setitem(migrations.STEPS, 0, migrations.Step("breaks", fails_at_the_last))
    with pytest.raises(UserError, match="row 'c2-0' of schema_version 0 makes no row of version 2"):
        upgrade(old)
    assert fake_sets.digests(old / "data") == before


# -------------------- kills


def killed_at(number: int, folder: Path, output: Path | None) -> bool:
    """Upgrade in a child that dies (SIGKILL) before its so-manieth write, rename or removal."""
    child = os.fork()
    if child:
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    try:
        left = [number]

        def counted(function):
            def call(*arguments, **options):
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **options)

            return call

        os.replace, os.fsync = counted(os.replace), counted(os.fsync)
        shutil.rmtree, os.unlink = counted(shutil.rmtree), counted(os.unlink)
        upgrade(folder, output)
    finally:
        os._exit(0)


def one_version(folder: Path) -> set[int]:
    return {row["schema_version"] for shard in (folder / "data").glob("*") for row in read_rows(shard)}


@pytest.mark.parametrize(("elsewhere", "first", "stride"), [(False, 1, 3), (True, 2, 5)])
def test_killed_anywhere_it_goes_on_and_ends_the_same(old, tmp_path, elsewhere, first, stride):
    whole = shutil.copytree(old, tmp_path / "whole")
    upgrade(whole)
    wanted, kills = fake_sets.digests(whole), 0
    for number in itertools.count(first, stride):  # each of them (stride 1) takes half a minute
        folder = tmp_path / f"set-{number}"
        output = tmp_path / f"out-{number}" if elsewhere else None
        shutil.copytree(old, folder)
        died = killed_at(number, folder, output)
        target = output or folder
        assert one_version(target) <= {0} or one_version(target) == {2}  # never of both
        if died:
            upgrade(folder, output)
        assert fake_sets.digests(target) == wanted, number
        if not died:
            break
        kills += 1
    assert kills >= 7


def test_shards_that_are_done_are_not_made_again(old, monkeypatch):
    written, room = [], []
    rewrite = upgrade_module.rewrite

    def spy(path, *rest):
        if len(written) == 2 and not room:
            raise OSError(28, "No space left on device")
        written.append(path.name)
        rewrite(path, *rest)

    shutil.rmtree(old / "synth")
    monkeypatch.setattr(upgrade_module, "rewrite", spy)
    with pytest.raises(OSError, match="No space left"):
        upgrade(old)
    assert len(written) == 2 and one_version(old) == {0}
    room.append(True)
    upgrade(old)
    assert len(written) == len(set(written)) == 3 and one_version(old) == {2}
