import math

import numpy as np
import pytest
from fake_clips import DURATION_S, dataset, row, truth_source

from bi_audio_dataset import ambisonics, captioning, jsonl, media
from bi_audio_dataset.captions import UNKNOWN
from bi_audio_dataset.clip_rows import ClipFolder
from bi_audio_dataset.review import decisions, drawing, evidence
from bi_audio_dataset.review.session import FILES_KEPT, ReviewSession, order_by_doubt
from bi_audio_dataset.schema import UserError

BELL = "Visible sound: a bell, Invisible sound: none"
DRUM = "Visible sound: a drum, Invisible sound: none"
CONFIDENCE = {"a": 0.9, "b": 0.1, "c": 0.5, "d": None}


@pytest.fixture
def folder(tmp_path):
    return dataset(tmp_path / "set", [row(k, v, caption=BELL) for k, v in CONFIDENCE.items()])


@pytest.fixture
def eva(folder):
    session = ReviewSession(folder, "eva")
    yield session
    session.close()


def keep_evidence(folder, clip_id, render=0, azimuth_deg=70.0):
    noise = np.random.default_rng(0).standard_normal(8000)
    foa = ambisonics.encode(noise, np.radians(azimuth_deg), 0.0)
    evidence.save(folder, clip_id, evidence.collect(np.full((32, 64, 3), 90, np.uint8), foa, 10000, render))


def fail_caption(folder, clip_id):
    queued = {"id": clip_id, "reason": "4 answers, none of them a caption", "attempts": []}
    jsonl.append_rows(folder / captioning.QUEUE_FILE, [queued])


def test_order_disputed_then_without_a_caption_then_by_falling_doubt(folder):
    infos = ClipFolder(folder).index()
    assert order_by_doubt(infos, {}) == ["d", "b", "c", "a"]
    assert order_by_doubt(infos, {"a": "why"}) == ["a", "d", "b", "c"]
    assert order_by_doubt(infos, {"a": "why"}, {"c"}) == ["c", "a", "d", "b"]


def test_the_queue_shrinks_as_clips_are_decided(eva):
    assert eva.queue() == ["d", "b", "c", "a"]
    assert eva.progress().open == 4
    eva.decide("b", "accept", BELL)
    eva.decide("d", "reject", "whatever stands there")
    eva.decide("a", "rerender", "")
    assert eva.queue() == ["c"]
    progress = eva.progress()
    assert (progress.total, progress.accepted, progress.rejected, progress.waiting, progress.open) == (
        4,
        1,
        1,
        1,
        1,
    )
    assert str(progress) == "3 of 4 decided: 1 accepted, 1 rejected, 1 to be rendered again"


def test_decisions_of_a_former_session_are_kept(folder, eva):
    eva.decide("b", "accept", BELL)
    assert ReviewSession(folder, "eva").queue() == ["d", "c", "a"]
    written = decisions.read(folder / "decisions.jsonl")
    assert [(w.clip_id, w.decision, w.caption, w.reviewer) for w in written] == [("b", "accept", "", "eva")]


def test_only_a_changed_caption_is_written_and_shown_from_then_on(eva):
    eva.decide("b", "accept", f"  {DRUM} ")
    eva.decide("c", "accept", BELL)
    assert [row.caption for row in eva.rows()] == [DRUM, ""]
    assert eva.view("b").caption == DRUM and eva.view("c").caption == BELL


@pytest.mark.parametrize("text", ["a bell", "", "Visible sound: a bell", UNKNOWN, DRUM + "."])
def test_a_malformed_caption_is_not_accepted_and_nothing_is_written(eva, text):
    with pytest.raises(UserError, match="the caption cannot be taken"):
        eva.decide("b", "accept", text)
    assert not eva.file.exists() and "b" in eva.queue()
    eva.decide("b", "reject", text)
    assert eva.verdicts()["b"] == decisions.Verdict("reject", 0, None, ("eva",))


def test_the_caption_stage_is_ahead_of_the_builders_caption(folder, eva):
    jsonl.append_rows(folder / captioning.CAPTIONS_FILE, [{"id": "a", "caption": DRUM, "by": "model"}])
    assert eva.view("a").caption == DRUM
    eva.decide("a", "accept", DRUM)
    assert eva.rows()[0].caption == ""


def test_a_rendering_asked_for_comes_back_once_it_is_there(folder, eva):
    eva.decide("b", "rerender", "")
    assert "b" not in eva.queue()
    keep_evidence(folder, "b", render=1)
    assert eva.queue()[1] == "b" and eva.progress().waiting == 0
    eva.decide("b", "accept", BELL)
    assert eva.rows()[-1].render == 1
    assert eva.verdicts()["b"] == decisions.Verdict("accept", 1, None, ("eva",))
    assert "b" not in eva.queue() and eva.progress().accepted == 1


def test_what_two_reviewers_differ_on_comes_first_until_both_have_seen_it(folder, eva, tmp_path):
    jo = ReviewSession(folder, "jo", tmp_path / "jo.jsonl")
    eva.decide("a", "accept", BELL)
    jo.decide("a", "reject", "")
    assert decisions.merge(eva.file, [jo.file]) == 1
    assert eva.queue()[0] == "a" and eva.progress().disagreements == 1
    assert "they differ" in eva.view("a").facts
    eva.decide("a", "accept", BELL)  # she stays with her word: it is not asked for again
    assert "a" not in eva.queue() and eva.progress().disagreements == 1
    eva.decide("a", "reject", "")
    assert eva.progress().disagreements == 0
    jo.close()


def test_next_goes_round(eva):
    assert [eva.after(clip_id) for clip_id in (None, "d", "b", "a", "gone")] == ["d", "b", "c", "d", "d"]
    for clip_id in "abd":
        eva.decide(clip_id, "reject", "")
    assert eva.after("c") is None and eva.after("a") == "c"


def test_the_view_has_the_binaural_sound_and_the_level_difference(tmp_path):
    session = ReviewSession(dataset(tmp_path, [row("a", left=0.2)]), "eva")
    view = session.view("a")
    info = media.probe(view.video)
    assert (info.width, info.height, info.audio_channels) == (64, 36, 2)
    assert info.duration_s == pytest.approx(DURATION_S, abs=0.05)
    sound, _ = media.read_audio(view.video)
    level = np.sqrt((sound**2).mean(axis=1))
    assert 20 * math.log10(level[0] / level[1]) == pytest.approx(6.0, abs=0.5)
    # left louder is drawn above the middle
    rows, _ = np.nonzero(np.abs(view.ild_image.astype(int) - drawing.END).sum(axis=2) < 60)
    assert rows.mean() < (12 + drawing.PLOT_SIZE[1] - 28) / 2 - 10
    session.close()
    assert not view.video.exists()


def test_only_the_last_files_are_kept(tmp_path):
    ids = [f"clip-{i}" for i in range(FILES_KEPT + 2)]
    session = ReviewSession(dataset(tmp_path, [row(clip_id) for clip_id in ids]), "eva")
    videos = [session.view(clip_id).video for clip_id in ids]
    assert [video.exists() for video in videos] == [False] * 2 + [True] * FILES_KEPT
    assert session.view(ids[0]).video.exists()
    session.close()


def test_the_map_shows_evidence_moments_and_truth(folder):
    known = row("t", caption=BELL)
    known["truth"]["sources"] = [truth_source(azimuth_deg=-90.0)]
    known["camera"]["yaw_deg"] = [90.0] * 20  # so the source lies in front of the recording
    session = ReviewSession(dataset(folder.parent / "other", [known]), "eva")
    bare = session.view("t")
    assert "No panorama" in bare.facts
    source = np.abs(bare.map_image.astype(int) - drawing.SOURCE).sum(axis=2) < 30
    assert np.nonzero(source)[1].mean() == pytest.approx(drawing.MAP_SIZE[0] / 2, abs=2)
    keep_evidence(session.folder, "t", render=1)
    view = session.view("t", moment_s=0.4)
    assert "Rendered again once" in view.facts and "No panorama" not in view.facts
    red = view.map_image[..., 0].astype(int) - view.map_image[..., 2]
    assert red[:, :512].max() > 100 > red[:, 700:].max()  # the sound is at 70 degrees to the left
    session.close()


def test_clips_that_cannot_be_shown_say_why(tmp_path):
    broken, gone = row("a"), "gone"
    broken["audio"]["bytes"] = b"no sound"
    session = ReviewSession(dataset(tmp_path, [broken, row("b")]), "eva")
    with pytest.raises(UserError, match="sound of clip 'a' cannot be decoded"):
        session.view("a")
    with pytest.raises(UserError, match="'gone' is not in"):
        session.view(gone)
    with pytest.raises(UserError, match="'gone' is not in"):
        session.decide(gone, "reject", "")
    session.decide("a", "reject", "")  # it can still be judged
    session.close()


def test_bad_starts(folder):
    with pytest.raises(UserError, match="name must not be empty"):
        ReviewSession(folder, " ")
    (folder / "decisions.jsonl").write_text('{"clip_id": "a"}\n')
    with pytest.raises(UserError, match=r"decisions\.jsonl:1: a decision lacks"):
        ReviewSession(folder, "eva")


def test_a_failed_caption_is_told(folder, eva):
    fail_caption(folder, "a")
    assert eva.queue()[0] == "a"
    assert "none of them a caption" in eva.view("a").facts
