"""What is decided about clips that were built, on manifest rows without media."""

import zlib
from pathlib import Path

import numpy as np
import pytest

from bi_audio_dataset import manifest
from bi_audio_dataset.duplicates import DuplicateFilter, to_text
from bi_audio_dataset.review.decisions import Verdict
from bi_audio_dataset.schema import UserError
from bi_audio_dataset.selection import decide, index_rows

CONFIG = DuplicateFilter()


def fingerprint(picture: int | None, sound: int | None) -> dict[str, str]:
    hashes = [] if picture is None else np.random.default_rng(picture).integers(0, 2**63, 4).tolist()
    words = [] if sound is None else np.random.default_rng(1000 + sound).integers(0, 2**16, 75)
    return to_text(hashes, np.array(words, np.uint16))


def rows_of(recording_id: str, split: str = "train", clips: int = 1, prints=None, **more) -> list[dict]:
    """A recording of so many clips; prints: of its first clip, (picture, sound) seeds."""
    own = zlib.crc32(recording_id.encode()) % 10**6 + 10**6
    rows = [
        {
            "kind": "clip",
            "id": recording_id if clips == 1 else f"{recording_id}-{n:04d}",
            "recording_id": recording_id,
            "split": split,
            "decision": "accept",
            "reasons": {},
            "marks": {},
            "fingerprint": fingerprint(*(prints if prints and n == 0 else (own + n, own + n))),
        }
        for n in range(clips)
    ]
    recording = {"kind": "recording", "id": recording_id, "decision": "built", "reasons": {}, "marks": {}}
    return [recording | more, *rows]


def entries_of(tmp_path: Path, *recordings: list[dict]):
    path = tmp_path / "journal.jsonl"
    path.unlink(missing_ok=True)
    for rows in recordings:
        manifest.append(path, rows)
    return index_rows(path)


def test_the_last_rows_of_a_recording_count(tmp_path):
    first = rows_of("a", clips=3)
    quarantined = {**first[0], "decision": "quarantine", "reasons": {"unusable": "was damaged"}}
    entries = entries_of(tmp_path, [quarantined], rows_of("b"), first, rows_of("a", clips=2))
    assert list(entries) == ["a", "b"]
    assert [clip.id for clip in entries["a"].clips] == ["a-0000", "a-0001"]
    assert entries["a"].built


def test_two_clips_of_one_id_are_refused(tmp_path):
    """What a build of an older version may have left: the second window of 'take', and 'take-0001'."""
    entries = entries_of(tmp_path, rows_of("take", clips=2), rows_of("take-0001"))
    with pytest.raises(UserError, match="two clips have the id 'take-0001', of recordings 'take' and"):
        decide(entries, CONFIG)
    assert len(decide(entries_of(tmp_path, rows_of("take", clips=2)), CONFIG).fates) == 2


def test_same_picture_and_sound_stays_once(tmp_path):
    entries = entries_of(
        tmp_path, rows_of("c", prints=(1, 1)), rows_of("a", prints=(1, 1)), rows_of("b", prints=(1, 1))
    )
    plan = decide(entries, CONFIG)
    assert {name: fate.decision for name, fate in plan.fates.items()} == {
        "a": "accept",
        "b": "reject",
        "c": "reject",
    }
    assert plan.fates["c"].reasons == {"duplicate": "picture and sound of 'a'"}
    marked = decide(entries, DuplicateFilter(action="mark"))
    assert marked.fates["c"].decision == "accept" and "duplicate" in marked.fates["c"].marks
    assert decide(entries, DuplicateFilter(action="off")).fates["c"].marks == {}


def test_only_what_stays_can_displace_another(tmp_path):
    rejected = rows_of("a", prints=(1, 1))
    rejected[1]["decision"] = "reject"
    plan = decide(entries_of(tmp_path, rejected, rows_of("b", prints=(1, 1))), CONFIG)
    assert plan.fates["b"].decision == "accept"


def test_the_same_file_twice_is_one_recording(tmp_path):
    files = {"input": {"video": "f00d"}}
    entries = entries_of(
        tmp_path,
        rows_of("a", clips=2, **files),
        rows_of("b", clips=2, **files),
        rows_of("c", clips=2, **files, stretches=[[0, 10]]),  # another part of the same film
        rows_of("d", input={"video": "beef"}),
    )
    plan = decide(entries, CONFIG)
    left_out = sorted(name for name, fate in plan.fates.items() if fate.decision == "reject")
    assert left_out == ["b-0000", "b-0001"]
    assert plan.fates["b-0001"].reasons == {"duplicate": "the same file as 'a'"}


@pytest.mark.parametrize("prints", [((1, 1), (1, 2)), ((1, 1), (2, 1))])
def test_near_duplicates_go_to_the_most_protected_split(tmp_path, prints):
    """Picture or sound alone agree: both clips stay, in one split with all clips of their recordings."""
    entries = entries_of(
        tmp_path,
        rows_of("a", "train", clips=2, prints=prints[0]),
        rows_of("b", "test", clips=2, prints=prints[1]),
        rows_of("c", "train"),
    )
    plan = decide(entries, CONFIG)
    assert {fate.decision for fate in plan.fates.values()} == {"accept"}
    splits = {name: fate.split for name, fate in plan.fates.items()}
    assert splits == {"a-0000": "test", "a-0001": "test", "b-0000": "test", "b-0001": "test", "c": "train"}
    assert plan.fates["a-0001"].marks == {"split": "moved from train: belongs with 'b'"}
    apart = decide(entries, DuplicateFilter(keep_together=False))
    assert apart.fates["a-0000"].split == "train"


def test_recordings_of_one_event_and_chains_do_not_part(tmp_path):
    entries = entries_of(
        tmp_path,
        rows_of("a", "train", group="concert"),
        rows_of("b", "validation", group="concert", prints=(5, 5)),
        rows_of("c", "train", prints=(6, 5)),
        rows_of("d", "train", group="other"),
    )
    fates = decide(entries, CONFIG).fates
    assert [fates[name].split for name in "abcd"] == ["validation", "validation", "validation", "train"]


def test_a_recording_of_which_nothing_stays_has_no_say(tmp_path):
    entries = entries_of(
        tmp_path,
        rows_of("a", "train", group="g"),
        rows_of("b", "test", group="g"),
        rows_of("c", "train", group="g"),
    )
    plan = decide(entries, CONFIG, removed={"b": "its author asked"})
    assert plan.fates["b"].reasons == {"removed": "its author asked"}
    assert [plan.fates[name].split for name in "ac"] == ["train", "train"]


def verdict(decision: str, render: int = 0, **more) -> Verdict:
    return Verdict(decision, render, more.pop("caption", None), ("ann",), **more)


def test_reviewers_decide(tmp_path):
    entries = entries_of(tmp_path, *(rows_of(name) for name in "abcde"))
    caption = "Visible sound: a bell, Invisible sound: none"
    plan = decide(
        entries,
        CONFIG,
        {
            "a": verdict("reject"),
            "b": verdict("accept", caption=caption),
            "c": verdict("rerender", 1),
            "d": verdict("reject", disagreement=True),
            "ghost": verdict("accept"),
        },
        {
            "b": "Visible sound: none, Invisible sound: rain",
            "e": "Visible sound: wind, Invisible sound: none",
        },
    )
    fates = plan.fates
    assert [fates[name].decision for name in "abcde"] == ["reject", "accept", "reject", "reject", "accept"]
    assert fates["b"].caption == caption
    assert fates["e"].caption.startswith("Visible sound: wind")
    text = "\n".join(plan.problems)
    assert "'c' waits for another camera path" in text and "reviewers differ about 'd'" in text
    assert "1 decisions are about clips that are not here: ghost" in text
    assert len(plan.problems) == 3


def test_what_was_rendered_again_is_published_and_says_so(tmp_path):
    rows = rows_of("a")
    rows[1]["draw"] = {"render": 1}
    entries = entries_of(tmp_path, rows)
    asked = decide(entries, CONFIG, {"a": verdict("rerender", 1)})
    assert asked.fates["a"].decision == "reject"
    assert asked.problems == ["'a' was rendered again: review it"]
    old = decide(entries, CONFIG, {"a": verdict("reject", 0)})
    assert old.fates["a"].decision == "accept" and "rendered again" in old.fates["a"].marks["review"]
    assert decide(entries, CONFIG, {"a": verdict("accept", 1)}).fates["a"].decision == "accept"


def test_another_path_that_a_filter_left_out_waits_for_nobody(tmp_path):
    rows = rows_of("a")
    rows[1] |= {"draw": {"render": 1}, "decision": "reject", "reasons": {"weak_cue": "too alike"}}
    plan = decide(entries_of(tmp_path, rows), CONFIG, {"a": verdict("rerender", 1)})
    assert plan.problems == []
    assert plan.notes == ["'a': ann asked for another camera path, which weak_cue left out"]
    assert plan.fates["a"].decision == "reject"
    # one more path is asked for: that one is still to come
    more = decide(entries_of(tmp_path, rows), CONFIG, {"a": verdict("rerender", 2)})
    assert more.notes == [] and "waits for another camera path" in more.problems[0]


def test_a_clip_without_media_cannot_be_accepted_back(tmp_path):
    rows = rows_of("a")
    rows[1]["decision"] = "reject"
    plan = decide(entries_of(tmp_path, rows), CONFIG, {"a": verdict("accept")})
    assert plan.fates["a"].decision == "reject"
    assert "it has no media" in plan.problems[0]


def test_a_row_that_lacks_something_is_one_line(tmp_path):
    with pytest.raises(UserError, match="holds a row that lacks 'kind'"):
        entries_of(tmp_path, [{"id": "a"}])
