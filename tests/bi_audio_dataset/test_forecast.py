"""--dry-run: what would be done and how large, without doing it."""

import dataclasses

import pytest
from fake_source import FakeSource, tiny_config
from quick_maker import QuickMaker, QuickSource, quick_build

from bi_audio_dataset import forecast as forecast_module
from bi_audio_dataset import unit
from bi_audio_dataset.clip import ClipMaker
from bi_audio_dataset.forecast import FewWindows, Sample, estimate, forecast, in_bytes, measure, spread
from bi_audio_dataset.schema import UserError
from bi_audio_dataset.workplace import Parts


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(unit, "ClipMaker", QuickMaker)
    monkeypatch.setattr(forecast_module, "length_s", lambda recording: 1.6)  # it has no files


def ask(folder, recordings: int, **changes) -> list[str]:
    source = QuickSource(tuple(range(recordings)))
    return forecast(source, tiny_config(rows_per_shard=8, **changes), folder)


def test_estimate_is_the_sample_times_the_rest():
    sample = Sample(recordings=4, clips=6, bytes=3_000_000, seconds=36.0, reasons={"x": "is broken"})
    told = estimate(sample, recordings=4000, workers=2, free=5_000_000_000)
    assert told == [
        "could not be used: x: is broken",
        "estimate from 4 recordings, built just now and thrown away: about 6000 clips, 3.0 GB, "
        "10.00 worker hours: 5.00 h with 2 workers",
        "disk needed at most: 6.0 GB; free: 5.0 GB",
        "that does not fit: choose another disk for --output, or --parts",
    ]
    assert len(estimate(sample, 4000, 2, free=7_000_000_000)) == 3
    none = Sample(recordings=1, reasons={"x": "is broken"})
    assert estimate(none, 9, 1, 0)[-1] == "none of the 1 that were tried could be used: no estimate"
    assert [in_bytes(size) for size in (2e5, 3e9, 4e12)] == ["0.2 MB", "3.0 GB", "4.0 TB"]


def test_sample_is_spread_over_the_list():
    assert spread(range(9), 3) == [1, 4, 7] and spread(range(2), 3) == [0, 1] and spread("a", 3) == ["a"]


def test_new_folder_is_estimated_from_a_few_and_not_made(tmp_path):
    told = ask(tmp_path / "set", 6)
    assert told[0] == "6 recordings, 0 of them built already, 6 to build"
    # fake-1, fake-3 and fake-5 are tried; the second clip of fake-5 is left out
    assert "about 10 clips" in told[1] and "from 3 recordings, built just now" in told[1]
    assert list(tmp_path.iterdir()) == []


def test_a_few_windows_stand_for_a_long_recording(monkeypatch):
    """An hour has 450 windows of 8 s; three are made. What grows with windows counts 150 times, what is done
    once a recording counts once, and what the dry run itself does not at all."""
    made = []

    class Slow(QuickMaker):
        def make(self, recording, *rest):
            made.append(recording.stretches)
            result = super().make(recording, *rest)
            result.windows_s = 6.0  # as if
            return result

    monkeypatch.setattr(unit, "ClipMaker", Slow)
    monkeypatch.setattr(forecast_module, "length_s", lambda recording: 3600.0)
    found = measure(QuickSource((1, 2)), tiny_config(clip_s=8.0), ["fake-1"])
    assert made == [((600.0, 608.0), (1800.0, 1808.0), (3000.0, 3008.0))]
    assert found.clips == 2 * 150  # this maker makes two, whatever is asked for
    assert found.seconds == pytest.approx(149 * 6.0, abs=1.0)
    short = measure(QuickSource((1, 2)), tiny_config(clip_s=1800.0 / 3), ["fake-1"])
    assert made[1:] == [((600.0, 1200.0), (1800.0, 2400.0), (3000.0, 3600.0))]
    assert found.bytes == pytest.approx(75 * short.bytes)


def test_windows_within_stretches_are_chosen_and_short_recordings_left_alone(tmp_path, monkeypatch):
    class Stretched(QuickSource):
        def fetch(self, recording_id, workdir):
            parts = ((0.0, 8.0), (100.0, 132.0)) if recording_id == "fake-0" else ((4.0, 20.0),)
            return dataclasses.replace(super().fetch(recording_id, workdir), stretches=parts)

    monkeypatch.setattr(forecast_module, "length_s", lambda recording: 300.0)
    few = FewWindows(Stretched((0, 1)), 8.0)
    assert few.fetch("fake-0", tmp_path).stretches == ((0.0, 8.0), (108.0, 116.0), (124.0, 132.0))
    assert few.fetch("fake-1", tmp_path).stretches == ((4.0, 20.0),)
    assert [times for times, _ in few.left_out.values()] == [pytest.approx(5 / 3), 1.0]


def test_estimate_of_real_media_is_that_of_the_whole(monkeypatch):
    """Seven windows of film, of which three are made: about the clips and bytes that all have."""
    monkeypatch.undo()
    source, config = FakeSource((30.0,), duration_s=5.6), tiny_config()
    made = []
    monkeypatch.setattr(unit, "ClipMaker", lambda *a, **k: made.append(ClipMaker(*a, **k)) or made[-1])
    few = measure(source, config, ["fake-0"])
    monkeypatch.setattr(forecast_module, "WINDOWS", 100)
    whole = measure(source, config, ["fake-0"])
    assert (few.clips, whole.clips) == (pytest.approx(7), 7)
    assert few.bytes == pytest.approx(whole.bytes, rel=0.5)


def test_begun_folder_is_estimated_from_what_stands_there(tmp_path):
    folder = tmp_path / "set"
    quick_build(folder, 9, finalize=False)
    for name in ("fake-0", "fake-1"):
        Parts.of(folder / ".work").remove(name)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    told = ask(folder, 9)
    assert told[0] == "9 recordings, 7 of them built already, 2 to build"  # the two in quarantine
    assert "clips: 13 accept, 1 reject (93 % accepted)" in told
    assert "from 7 recordings, built there already" in told[-2]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    with pytest.raises(UserError, match="holds another build"):
        ask(folder, 9, seed=1)


def test_finished_folder_needs_nothing(tmp_path):
    quick_build(tmp_path / "set", 3)
    assert ask(tmp_path / "set", 3)[0] == "3 recordings: already complete, nothing would be done"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("x")
    with pytest.raises(UserError, match="not empty"):
        ask(tmp_path / "mine", 3)
