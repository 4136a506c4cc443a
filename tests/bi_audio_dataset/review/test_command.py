import pytest
from fake_clips import dataset, row

from bi_audio_dataset.review import decisions, main, page
from bi_audio_dataset.schema import UserError

BELL = "Visible sound: a bell, Invisible sound: none"


@pytest.fixture
def folder(tmp_path):
    return dataset(tmp_path / "set", [row(k, v, caption=BELL) for k, v in {"a": 0.9, "b": 0.1}.items()])


def test_the_queue_is_printed_without_a_page(folder, capsys):
    assert main([str(folder), "--queue", "--reviewer", "eva"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("0 of 2 decided: 0 accepted, 0 rejected, 0 to be rendered again")
    assert lines[1:] == ["b\t0.10", "a\t0.90"]
    assert main([str(folder), "--queue", "1"]) == 0
    assert capsys.readouterr().out.count("\n") == 2


def test_merge(folder, tmp_path, capsys):
    jo = tmp_path / "jo.jsonl"
    decisions.append(folder / "decisions.jsonl", decisions.Decision(decisions.now(), "eva", "a", "accept"))
    decisions.append(jo, decisions.Decision(decisions.now(), "jo", "a", "reject"))
    assert main([str(folder), "--merge", str(jo)]) == 0
    out = capsys.readouterr().out
    assert "1 decisions added, 1 clips decided" in out and "reviewers differ on 1: a" in out
    assert main([str(folder), "--merge", str(jo)]) == 0
    assert "0 decisions added" in capsys.readouterr().out


def test_the_page_gets_what_the_flags_say(folder, tmp_path, monkeypatch):
    seen = {}

    def launch(session, host, port, browser):
        seen.update(reviewer=session.reviewer, file=session.file, at=(host, port, browser))

    monkeypatch.setattr(page, "launch", launch)
    file = tmp_path / "mine.jsonl"
    flags = ["--reviewer", "eva", "--decisions", str(file), "--host", "0.0.0.0", "--port", "7999"]
    flags.append("--no-browser")
    assert main([str(folder), *flags]) == 0
    assert seen == {"reviewer": "eva", "file": file, "at": ("0.0.0.0", 7999, False)}


def test_mistakes(tmp_path, folder, capsys):
    with pytest.raises(UserError, match="is not a folder"):
        main([str(tmp_path / "nowhere")])
    with pytest.raises(UserError, match="no such file of decisions"):
        main([str(folder), "--merge", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit) as end:
        main([str(folder), "--queue", "--merge", "x"])
    assert end.value.code == 2 and capsys.readouterr().err.count("\n") == 1
