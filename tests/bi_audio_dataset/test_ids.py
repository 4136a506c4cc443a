import itertools

import pytest

from bi_audio_dataset.ids import check_ids, view_id, window_id
from bi_audio_dataset.schema import UserError

WINDOWS, VIEWS = (0, 1, 999, 1000, 9999, 10000, 12345), (0, 1, 10, 12)


def clip_ids(recording_id: str) -> set[str]:
    """All that its clips may be called, however many windows and views there are."""
    windows = [recording_id, *(window_id(recording_id, number, 2) for number in WINDOWS)]
    return {*windows, *(view_id(window, view, 2) for window in windows for view in VIEWS)}


def test_ids_of_clips():
    assert [window_id("a", 0, 1), window_id("a", 3, 4), window_id("a", 12345, 20000)] == [
        "a",
        "a-0003",
        "a-12345",
    ]
    assert [view_id("a-0003", 0, 1), view_id("a-0003", 0, 2), view_id("a", 11, 12)] == [
        "a-0003",
        "a-0003-v0",
        "a-v11",
    ]


@pytest.mark.parametrize(
    "added",
    ["-0001", "-10000", "-v0", "-v12", "-0001-v0", "-1", "-001", "-00001", "-v", "-v01", "-v0-0001", "b"],
)
def test_refused_is_what_two_recordings_clips_could_share(added):
    """Against all ids that the clips of the two can have."""
    shared = clip_ids("take") & clip_ids("take" + added)
    if not shared:
        check_ids(["take", "take" + added])
        return
    for ids in (["x", "take", "take" + added], ["take" + added, "take"]):
        with pytest.raises(UserError) as error:
            check_ids(ids)
        assert f"'take' could have the id of recording 'take{added}': rename" in str(error.value)
    check_ids(["x", "take" + added])  # alone it is a name like any other


def test_what_is_not_refused_shares_nothing():
    names = ["a", "a-1", "a-1-0001", "a-00010", "a-v", "a-v1x", "a-0001-v01", "b-0001", "b-0002", "b-v1"]
    pairs = list(itertools.combinations(names, 2))
    for first, second in pairs:
        if not clip_ids(first) & clip_ids(second):
            check_ids([first, second])
    refused = [pair for pair in pairs if clip_ids(pair[0]) & clip_ids(pair[1])]
    assert refused == [("a-1", "a-1-0001")]


def test_none_and_twice():
    with pytest.raises(UserError, match="nothing to build"):
        check_ids([])
    with pytest.raises(UserError, match="'a' occurs more than once"):
        check_ids(["a", "b", "a"])
