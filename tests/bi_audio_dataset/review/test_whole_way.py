"""Recordings to clips, captions, decisions, another camera path, published rows: what the docs promise."""

import numpy as np
import pytest
from fake_source import FakeSource, tiny_config

from bi_audio_dataset import captioning
from bi_audio_dataset.build import build
from bi_audio_dataset.clip_rows import ClipFolder
from bi_audio_dataset.finalize import finalize
from bi_audio_dataset.review import drawing, evidence
from bi_audio_dataset.review.session import ReviewSession
from bi_audio_dataset.shards import read_rows
from bi_audio_dataset.workplace import EVIDENCE, Parts

BELL = "Visible sound: a bell, Invisible sound: none"


@pytest.fixture(scope="module", params=[None, "folder", "memory://whole/parts"])
def built(tmp_path_factory, request):
    """Three clips that wait, their parts here or elsewhere; fake-0 accepted with a new caption, fake-1
    rejected, fake-2 rendered again."""
    home = tmp_path_factory.mktemp("whole")
    folder, parts = home / "set", str(home / "parts") if request.param == "folder" else request.param

    def once_more():
        build(FakeSource(), folder, tiny_config(), workers=0, progress=False, finalize=False, parts=parts)
        if parts is not None:  # what workers leave beside the parts is brought home
            assert Parts(parts).sizes(EVIDENCE) == {} and len(Parts(parts).sizes()) == 3
            assert not (folder / ".work/parts").exists()

    once_more()
    session = ReviewSession(folder, "eva")
    first = {clip_id: session.clips.row(clip_id) for clip_id in session.clips.index()}
    kept = {clip_id: evidence.load(folder, clip_id) for clip_id in first}
    session.decide("fake-0", "accept", BELL)
    session.decide("fake-1", "reject", "")
    session.decide("fake-2", "rerender", "")
    waiting = session.queue()
    once_more()
    return folder, session, first, kept, waiting


def test_the_build_keeps_what_the_page_shows(built):
    _, session, first, kept, _ = built
    assert set(kept) == {"fake-0", "fake-1", "fake-2"}
    for clip_id, azimuth in (("fake-0", 30), ("fake-1", -60), ("fake-2", 100)):
        energy = kept[clip_id].energy_map(180, 90)
        column = np.unravel_index(energy.argmax(), energy.shape)[1]
        assert 180 - 2 * (column + 0.5) == pytest.approx(azimuth, abs=3)
        # and the white square of the panorama is where its sound is
        bright = np.nonzero(kept[clip_id].panorama.mean(axis=2) > 200)[1]
        assert 180 - 360 * (bright.mean() + 0.5) / 512 == pytest.approx(azimuth, abs=3)
    view = session.view("fake-0")
    assert "No panorama" not in view.facts and view.map_image.shape[:2] == drawing.MAP_SIZE[::-1]


def test_a_clip_asked_for_again_comes_back_on_another_path(built):
    folder, session, first, _, waiting = built
    assert waiting == [] and session.queue() == ["fake-2"]
    again = ClipFolder(folder).row("fake-2")
    assert again["camera"]["yaw_deg"] != first["fake-2"]["camera"]["yaw_deg"]
    assert again["video"]["bytes"] != first["fake-2"]["video"]["bytes"]
    assert evidence.renders(folder) == {"fake-0": 0, "fake-1": 0, "fake-2": 1}
    assert ClipFolder(folder).row("fake-0") == first["fake-0"]


def test_finalize_publishes_what_stands(built, tmp_path):
    folder, session, *_ = built
    mine = tmp_path / "mine.csv"
    drum = BELL.replace("bell", "drum")
    mine.write_text(f'id,caption\nfake-0,"{drum}"\nfake-2,"{drum}"\n')
    assert captioning.import_captions(ClipFolder(folder), mine) == (2, [])
    session.decide("fake-2", "accept", drum)
    assert session.queue() == []
    finalize(folder, keep=True)
    rows = {row["id"]: row for path in (folder / "data").glob("*.parquet") for row in read_rows(path)}
    # a reviewer's caption is ahead of the file's
    assert {clip_id: row["caption"] for clip_id, row in rows.items()} == {"fake-0": BELL, "fake-2": drum}
    # and a change of mind changes the next edition
    session.decide("fake-1", "accept", BELL)
    finalize(folder, keep=True)
    ids = {row["id"] for path in (folder / "data").glob("*.parquet") for row in read_rows(path)}
    assert ids == {"fake-0", "fake-1", "fake-2"}
    session.close()
