"""What commands leave for themselves: written whole or not at all, and one line where that cannot be."""

import errno
import os
import types
from pathlib import Path

import pytest
import torch

from bi_audio_dataset.schema import UserError
from visaudio import stored, tables
from visaudio.evaluation import generation, synth_outputs
from visaudio.evaluation.truth_files import read_truth
from visaudio.stored import holds, read_object, write_whole


def test_written_whole_over_what_was_there(tmp_path):
    path = tmp_path / "a" / "b" / "c.json"
    for data in (b"one", b"two, longer", b""):
        write_whole(path, data)
        assert path.read_bytes() == data and holds(path, data) and not holds(path, data + b"x")
    assert list(path.parent.iterdir()) == [path]
    assert not holds(tmp_path / "none", b"") and not holds(path / "below", b"")


def test_what_is_in_the_way_stays_and_is_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder" / "full").mkdir(parents=True)
    with pytest.raises(UserError, match=f"^{tmp_path}/file: cannot be made a folder .*\\(File exists"):
        write_whole(tmp_path / "file" / "x", b"data")
    with pytest.raises(UserError, match=f"^{tmp_path}/folder: cannot be written \\(Is a directory\\)$"):
        write_whole(tmp_path / "folder", b"data")
    with pytest.raises(UserError, match="^/proc/none: cannot be made a folder"):
        write_whole(Path("/proc/none/x"), b"data")
    with pytest.raises(UserError, match="folder: cannot be read"):
        holds(tmp_path / "folder", b"")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "notes.json"
    write_whole(path, b"old")

    def full(self, data):
        with open(self, "wb") as file:
            file.write(data[:2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(stored.Path, "write_bytes", full)
    with pytest.raises(UserError, match="notes.json: cannot be written \\(No space left on device\\)"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_damaged_json_is_one_line_with_advice(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_bytes(text)
    with pytest.raises(UserError, match=f"^{path}: is damaged, .*; do this$") as error:
        read_object(path, "do this")
    assert "\n" not in str(error.value)
    path.write_bytes(b'{"a": 1}')
    assert read_object(path, "") == {"a": 1}
    assert read_object(tmp_path / "none", "") is None and read_object(path / "below", "") is None
    with pytest.raises(UserError, match="cannot be read"):
        read_object(tmp_path, "do this")


def test_the_models_mark_and_notes(tmp_path):
    mark = tmp_path / "sounds" / "model.made.json"
    write_whole(mark, b"{")
    with pytest.raises(UserError, match=r"model.made.json: is damaged.*give another --output, or remove"):
        generation._claim(tmp_path, {"seed": 0})
    assert mark.read_bytes() == b"{"
    notes = tmp_path / "sounds" / "model" / "a.json"
    assert not synth_outputs._is_done(tmp_path, "model", "a", "a")
    for text, done in ((b"{}", False), (b'{"conditions_of": "b"}', False), (b'{"conditions_of": "a"}', True)):
        write_whole(notes, text)
        assert synth_outputs._is_done(tmp_path, "model", "a", "a") is done
    write_whole(notes, b'{"conditions_of"')
    with pytest.raises(UserError, match="model/a.json: is damaged.*remove it: the same command makes that"):
        synth_outputs._is_done(tmp_path, "model", "a", "a")


def dies():
    os._exit(9)


def refuses():
    codec = types.SimpleNamespace(sample_rate=4000)
    return types.SimpleNamespace(preset=types.SimpleNamespace(sequence=None), codec=codec)


@pytest.mark.slow
@pytest.mark.parametrize(("load", "said"), [(dies, "a worker process ended"), (refuses, "a.flac")])
def test_what_ends_a_worker_is_one_line(tmp_path, load, said):
    work = synth_outputs.Work(tmp_path, load, 0, {"a": 1.0})
    jobs = [synth_outputs.Job("codec", ("a",), ("a",))]
    with pytest.raises(UserError, match=said) as error:
        synth_outputs.run_jobs(jobs, work, 2, lambda count: None)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["cut", "text", "other"])
def test_damaged_conditions(tmp_path, kind):
    path = tmp_path / "a.pt"
    torch.save([{"odd": torch.zeros(9)}], path)
    path.write_bytes({"cut": path.read_bytes()[:200], "text": b"hello", "other": path.read_bytes()}[kind])
    components = type("Components", (), {"device": "cpu"})
    with pytest.raises(UserError, match="a.pt: cannot be read as what a model is told.*remove it") as error:
        synth_outputs.kept_conditions(path, components, list)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"sources": [5]}', '{"sources": [{"odd": 1}]}'])
def test_a_damaged_truth(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match="a.json: cannot be read as a clip's truth") as error:
        read_truth(tmp_path / "a.json")
    assert "\n" not in str(error.value)


def test_a_table_goes_between_its_marks_or_nothing_changes(tmp_path):
    begin, end = tables.marks("t")
    path = tmp_path / "results.md"
    path.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    tables.publish("new", None, path, "t")
    assert path.read_text() == f"before\n{begin}\nnew\n{end}\nafter\n" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(UserError, match="holds no <!-- other"):
        tables.publish("new", None, path, "other")
    path.write_bytes(b"\xff" + path.read_bytes())
    with pytest.raises(UserError, match="results.md: cannot be read"):
        tables.publish("new", None, path, "t")


def test_a_shown_command_keeps_no_folder_of_this_machine():
    typed = ["--dataset", "/data/benchmark", "--system", "my own=/a/b/theirs", "--set", "x.y=3", "out/a"]
    shown = "python benchmarks/x.py --dataset benchmark --system 'my own=theirs' --set x.y=3 out/a"
    assert tables.shown_command("benchmarks/x.py", typed) == shown
