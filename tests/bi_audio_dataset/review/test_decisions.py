import itertools
import re

import pytest

from bi_audio_dataset.review.decisions import Decision, Verdict, append, check_row, merge, now, read, resolve
from bi_audio_dataset.schema import UserError

BELL = "Visible sound: a bell, Invisible sound: none"
DRUM = "Visible sound: a drum, Invisible sound: none"
ROW = {
    "clip_id": "a",
    "decision": "accept",
    "caption": None,
    "reviewer": "eva",
    "time": "2026-01-31T12:00:00Z",
}


def said(second: int, reviewer: str, decision: str, caption: str = "", render: int = 0, clip_id: str = "a"):
    return Decision(f"2026-01-31T12:00:{second:02d}.000000Z", reviewer, clip_id, decision, caption, render)


def verdict(*rows) -> Verdict:
    """The verdict on clip a, which must not depend on the order of the rows or on repeated ones."""
    found = {str(resolve(order)["a"]) for order in itertools.permutations(rows)}
    assert len(found) == 1
    assert resolve([*rows, *rows]) == resolve(rows)
    return resolve(rows)["a"]


def test_rows_are_of_the_agreed_form_and_come_back(tmp_path):
    path = tmp_path / "decisions.jsonl"
    append(path, Decision(now(), "eva", "a/b ü", "accept", BELL))
    append(path, said(1, "eva", "rerender"))
    append(path, said(2, "eva", "reject", render=1))
    first, second, third = [decision.to_row() for decision in read(path)]
    assert list(first) == ["clip_id", "decision", "caption", "reviewer", "time"]
    assert (first["clip_id"], first["caption"], second["caption"]) == ("a/b ü", BELL, None)
    assert list(second) == list(first) and third["render"] == 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", first["time"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"decision": "keep"}, "decision is 'keep'"),
        ({"reviewer": " "}, "reviewer must be a text"),
        ({"clip_id": 3}, "clip_id must be a text"),
        ({"time": "yesterday"}, "time is 'yesterday'"),
        ({"time": "2026-01-31T12:00:00+01:00"}, "expected UTC"),
        ({"caption": "a bell"}, "caption: it is not of the form"),
        ({"render": -1}, "render is -1"),
        ({"render": True}, "render is True"),
    ],
)
def test_malformed_rows_are_refused(change, words):
    with pytest.raises(UserError, match=f"^file:7: .*{words}"):
        check_row({**ROW, **change}, "file:7")


def test_a_missing_key_and_a_bad_line_are_named(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text('{"clip_id": "a", "decision": "accept", "reviewer": "eva"}\n')
    with pytest.raises(UserError, match=r"d\.jsonl:1: a decision lacks caption, time"):
        read(path)


def test_what_would_not_be_read_back_is_not_written(tmp_path):
    with pytest.raises(UserError, match="decision is 'maybe'"):
        append(tmp_path / "d.jsonl", Decision(now(), "eva", "a", "maybe"))
    assert not (tmp_path / "d.jsonl").exists()


def test_times_written_in_two_ways_sort_as_times():
    late = check_row({**ROW, "time": "2026-01-31T12:00:00.5Z"}, "x")
    early = check_row({**ROW, "time": "2026-01-31T12:00:00Z", "decision": "reject"}, "x")
    assert resolve([late, early])["a"].decision == "accept"


def test_a_reviewers_last_word_counts():
    assert verdict(said(1, "eva", "reject"), said(2, "eva", "accept", BELL)) == Verdict(
        "accept", 0, BELL, ("eva",)
    )
    assert verdict(said(2, "eva", "reject"), said(1, "eva", "accept", BELL)) == Verdict(
        "reject", 0, None, ("eva",)
    )


def test_reject_stands_where_two_differ_whoever_was_last():
    for first, second in ((1, 2), (2, 1)):
        found = verdict(said(first, "eva", "accept"), said(second, "jo", "reject"))
        assert found == Verdict("reject", 0, None, ("eva", "jo"), disagreement=True)
    found = verdict(said(1, "eva", "accept"), said(2, "jo", "reject"), said(3, "jo", "accept"))
    assert found == Verdict("accept", 0, None, ("eva", "jo"))


def test_the_last_changed_caption_stands():
    found = verdict(said(1, "eva", "accept", BELL), said(2, "jo", "accept", DRUM), said(3, "ann", "accept"))
    assert found.caption == DRUM


def test_rendering_again_sets_aside_what_was_said_of_the_rendering_before():
    asked = [said(1, "eva", "accept", BELL), said(2, "jo", "rerender")]
    assert verdict(*asked) == Verdict("rerender", 1, None, ("jo",))
    # two reviewers who both ask for it get one new rendering
    assert verdict(*asked, said(3, "ann", "rerender")) == Verdict("rerender", 1, None, ("ann", "jo"))
    # a later word on the old rendering does not count, one on the new does
    assert verdict(*asked, said(4, "ann", "reject")).decision == "rerender"
    assert verdict(*asked, said(4, "ann", "accept", render=1)) == Verdict("accept", 1, None, ("ann",))
    again = said(5, "jo", "rerender", render=1)
    assert verdict(*asked, said(4, "ann", "accept", render=1), again) == Verdict("rerender", 2, None, ("jo",))


def test_a_request_can_be_taken_back():
    assert verdict(said(1, "jo", "rerender"), said(2, "jo", "accept")) == Verdict("accept", 0, None, ("jo",))


def test_clips_are_judged_apart():
    found = resolve([said(1, "eva", "accept"), said(1, "eva", "reject", clip_id="b")])
    assert {clip_id: verdict.decision for clip_id, verdict in found.items()} == {"a": "accept", "b": "reject"}


def test_files_of_two_reviewers_merge_to_the_same_whichever_way(tmp_path):
    rows = {
        "eva": [said(1, "eva", "accept"), said(3, "eva", "reject", clip_id="b")],
        "jo": [said(2, "jo", "reject"), said(1, "jo", "accept", DRUM, clip_id="c")],
    }
    for one, other in (("eva", "jo"), ("jo", "eva")):
        paths = {name: tmp_path / f"{one}-{name}.jsonl" for name in rows}
        for name, path in paths.items():
            for row in rows[name]:
                append(path, row)
        kept = paths[one].read_text()
        assert merge(paths[one], [paths[other]]) == 2
        assert paths[one].read_text().startswith(kept)  # only ever appended to
        assert merge(paths[one], [paths[other], paths[one]]) == 0
        assert resolve(read(paths[one])) == resolve([*rows["eva"], *rows["jo"]])
        assert resolve(read(paths[one]))["a"].disagreement


def test_a_bad_file_among_those_to_merge_changes_nothing(tmp_path):
    ours, good, bad = tmp_path / "ours.jsonl", tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    append(good, said(1, "jo", "accept"))
    bad.write_text("{}\n")
    with pytest.raises(UserError, match=r"bad\.jsonl:1"):
        merge(ours, [good, bad])
    with pytest.raises(UserError, match="no such file"):
        merge(ours, [good, tmp_path / "nowhere.jsonl"])
    assert not ours.exists()
