import json

import pytest
from quick_maker import QuickMaker, quick_build

from bi_audio_dataset import unit
from bi_audio_dataset.schema import UserError
from bi_audio_dataset.selection import Entry
from bi_audio_dataset.status import rates, status


def done(seconds: float, at: float) -> Entry:
    return Entry("x", 0, True, {}, "", "", seconds, at=at)


def test_rates_are_of_the_work_and_of_the_clock():
    # four workers: each recording takes 60 s, one is finished every 15 s
    entries = [done(60.0, 1000.0 + 15 * i) for i in range(9)]
    assert rates(entries, 480) == [
        "60.0 s of one worker a recording: 8.00 worker hours are left",
        "240 recordings an hour lately: 2.00 h are left",
    ]
    assert rates(entries, 0) == ["60.0 s of one worker a recording", "240 recordings an hour lately"]


def test_a_night_of_standing_still_is_not_counted():
    before = [done(60.0, 1000.0 + i) for i in range(5)]
    after = [done(60.0, 50_000.0 + 36 * i) for i in range(4)]
    assert rates([*before, *after], 100)[1] == "100 recordings an hour lately: 1.00 h are left"


def test_nothing_is_said_of_what_is_not_known():
    assert rates([], 5) == [] == rates([done(0.0, 0.0)], 5)


def test_counts_reasons_rates_and_size(tmp_path, monkeypatch):
    monkeypatch.setattr(unit, "ClipMaker", QuickMaker)
    folder = tmp_path / "set"
    quick_build(folder, 9, finalize=False)
    journal = folder / ".work/journal.jsonl"
    rows = [json.loads(line) for line in journal.read_text().splitlines()]
    for number, row in enumerate(row for row in rows if row["kind"] == "recording"):
        row["at"] = 1000.0 + 10 * number
        if row["decision"] == "built":
            row["seconds"] = 20.0
    journal.write_text("".join(json.dumps(row) + "\n" for row in rows))
    record = json.loads((folder / "build.json").read_text())
    record["source"]["recordings"] = 189
    (folder / "build.json").write_text(json.dumps(record))
    told = status(folder)
    assert told[0].endswith("9 of 189 recordings done")
    assert told[1:5] == [
        "recordings: 7 built, 2 quarantine",
        "clips: 13 accept, 1 reject (93 % accepted)",
        "quarantine: 1 failed, 1 too_short",
        "left out: 1 silent",
    ]
    assert "20.0 s of one worker a recording: 1.00 worker hours are left" in told
    assert "360 recordings an hour lately: 0.50 h are left" in told
    size = sum(path.stat().st_size for path in (folder / ".work/parts").glob("*.parquet"))
    assert told[-1] == f"{size / 1e6:.1f} MB so far, about {size * 21 / 1e6:.0f} MB in all"
    with pytest.raises(UserError, match="holds no build.json"):
        status(tmp_path)
