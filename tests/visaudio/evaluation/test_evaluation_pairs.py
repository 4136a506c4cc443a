"""Which file is of which clip, and what becomes of those that lack one side."""

import pytest

from bi_audio_dataset.schema import UserError
from visaudio.evaluation import pairs
from visaudio.evaluation.pairs import Reference, find_sounds, pair_up, parse_systems
from visaudio.evaluation.problems import Problems, line


def folder(path, *names):
    path.mkdir(parents=True, exist_ok=True)
    for name in names:
        (path / name).write_bytes(b"x")
    return path


def named(problems: Problems) -> dict[tuple[str, str], tuple[str, ...]]:
    return {(p.kind, p.system): p.names for p in problems.found()}


def test_files_are_found_by_stem_whatever_system_wrote_them(tmp_path):
    folder(tmp_path, "a.wav", "b.FLAC", "c.binaural.flac", "d.mp4", "e.x.mp3", ".hidden.wav", "notes.txt")
    folder(tmp_path, "a.json")  # beside a.wav: notes of the program that made it
    problems = Problems()
    found = find_sounds(tmp_path, problems, system="s")
    assert {clip: path.name for clip, path in found.sounds.items()} == {
        "a": "a.wav", "b": "b.FLAC", "c": "c.binaural.flac", "d": "d.mp4", "e.x": "e.x.mp3",
    }  # fmt: skip
    assert list(found.videos) == ["d"]
    assert named(problems) == {("other_files", "s"): ("notes.txt",)}


@pytest.mark.parametrize(
    "names, generated, reference",
    [
        (("a.mp4", "a.flac"), "a.flac", "a.flac"),
        (("a.mp3", "a.mp4"), "a.mp3", "a.mp3"),
        (("a.wav", "a.flac"), "a.flac", "a.flac"),  # of equals the first by name
        (("a.mp4", "a.binaural.mp4", "a.binaural.flac"), "a.binaural.flac", "a.mp4"),
        (("a.wav", "a.binaural.mp4"), "a.binaural.mp4", "a.wav"),
    ],
)
def test_of_several_files_one_is_taken_and_that_is_said(tmp_path, names, generated, reference):
    folder(tmp_path, *names)
    for marked_first, expected in ((True, generated), (False, reference)):
        problems = Problems()
        found = find_sounds(tmp_path, problems, marked_first=marked_first)
        assert found.sounds["a"].name == expected
        (problem,) = problems.found()
        assert problem.kind == "several_files" and not problem.serious
        assert problem.details[0].startswith(f"{expected} of ")


@pytest.mark.parametrize("given, message", [("gone", "no such folder"), ("a.wav", "is a file")])
def test_what_is_no_folder(tmp_path, given, message):
    folder(tmp_path, "a.wav")
    with pytest.raises(UserError, match=message):
        find_sounds(tmp_path / given, Problems())


def test_a_folder_of_folders(tmp_path):
    folder(tmp_path / "inner", "a.wav")
    with pytest.raises(UserError, match="holds folders: give one of them"):
        find_sounds(tmp_path, Problems())


def test_sounds_in_folders_below_are_counted_and_one_is_named(tmp_path):
    folder(tmp_path, "a.wav")
    folder(tmp_path / "more" / "deep", "b.WAV", "notes.txt", ".hidden.wav")
    folder(tmp_path / "more", "c.mp4")
    folder(tmp_path / ".cache", "d.wav")
    problems = Problems()
    assert list(find_sounds(tmp_path, problems, system="s").sounds) == ["a"]
    (problem,) = problems.found()
    assert problem.names == ("more/c.mp4", "more/deep/b.WAV") and not problem.serious
    assert line(problem) == (
        "s: 2 x a sound in a folder below the one given: passed over, e.g. more/c.mp4"
    )  # fmt: skip


def test_lines_on_the_references_files_say_so(tmp_path):
    problems = Problems()
    folder(tmp_path, "a.wav", "a.flac", "x.txt")
    folder(tmp_path / "sub", "b.wav")
    find_sounds(tmp_path, problems, system="s")
    pairs.reference_of_folder(tmp_path, problems)
    said = [line(problem) for problem in problems.found()]
    assert len(said) == 6 and all(text.startswith("reference: 1 x ") for text in said[0::2])
    assert said[1::2] == [text.replace("reference: ", "s: ", 1) for text in said[0::2]]


def test_systems_are_named_by_themselves_or_by_their_folders(tmp_path):
    odd = folder(tmp_path / "x=y")
    one = folder(tmp_path / "one")
    assert parse_systems([str(one), f"mine={one}", str(odd)]) == {"one": one, "mine": one, "x=y": odd}
    with pytest.raises(UserError, match="two systems are called 'one'"):
        parse_systems([str(one), str(one)])
    for name in ("a/b", "", ".", ".."):
        with pytest.raises(UserError, match=f"^--generated '{name}=.*: the name '{name}' .* without '/'"):
            parse_systems([f"{name}={one}"])
    assert parse_systems([f"v1.={one}", f"..a={one}"]) == {"v1.": one, "..a": one}


@pytest.fixture
def two(tmp_path):
    problems = Problems()
    first = find_sounds(folder(tmp_path / "one", "a.wav", "b.wav", "z.wav"), problems)
    other = find_sounds(folder(tmp_path / "two", "b.wav", "c.wav"), problems)
    return {"one": first, "two": other}


def test_missing_pairs_are_listed_both_ways(two):
    problems = Problems()
    clips = pair_up(two, {name: Reference() for name in "abcd"}, problems)
    assert [(clip.id, sorted(clip.sounds)) for clip in clips] == [
        ("a", ["one"]), ("b", ["one", "two"]), ("c", ["two"]),
    ]  # fmt: skip
    assert named(problems) == {
        ("missing_generated", "one"): ("c", "d"),
        ("missing_generated", "two"): ("a", "d"),
        ("missing_reference", "one"): ("z",),
    }
    assert all(problem.serious for problem in problems.found())


def test_without_reference_the_systems_are_held_against_each_other(two):
    problems = Problems()
    assert [clip.id for clip in pair_up(two, None, problems)] == ["a", "b", "c", "z"]
    assert named(problems) == {
        ("missing_generated", "one"): ("c",), ("missing_generated", "two"): ("a", "z"),
    }  # fmt: skip


def test_a_limit_asks_for_the_first_clips_of_the_reference(two):
    problems = Problems()
    assert [clip.id for clip in pair_up(two, ["b", "a", "c", "d"], problems, limit=2)] == ["a", "b"]
    assert named(problems) == {("missing_generated", "two"): ("a",), ("missing_reference", "one"): ("z",)}


def test_nothing_in_common_is_an_error_that_shows_both_names(two):
    with pytest.raises(UserError, match=r"two: none of the 2 sounds .* \(e.g. 'b'\).*\(e.g. 'q'\)"):
        pair_up({"two": two["two"]}, ["q"], Problems())


def test_pictures(tmp_path):
    problems = Problems()
    generated = find_sounds(folder(tmp_path / "g", "a.binaural.flac", "a.binaural.mp4", "b.wav"), problems)
    reference = pairs.reference_of_folder(folder(tmp_path / "r", "a.wav", "b.mp4"), problems)
    clips = {clip.id: clip for clip in pair_up({"s": generated}, reference, problems)}
    assert clips["a"].video("s").name == "a.binaural.mp4" and clips["b"].video("s").name == "b.mp4"
    videos = pairs.find_videos(folder(tmp_path / "v", "a.mov", "q.mp4"))
    clips = {clip.id: clip for clip in pairs.with_videos(list(clips.values()), videos)}
    assert clips["a"].video("s").name == "a.mov" and clips["b"].video("s").name == "b.mp4"
    with pytest.raises(UserError, match="holds no video"):
        pairs.find_videos(folder(tmp_path / "none", "a.wav"))


@pytest.mark.parametrize(
    "name, text",
    [
        ("c.json", '{"a": "a bell, struck", "b": ""}'),
        ("c.csv", 'id,caption,more\na,"a bell, struck",1\nb,,2\n'),
        ("c.tsv", "\ufeffcaption\tid\na bell, struck\ta\n\tb\n"),
    ],
)
def test_captions_of_a_file(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    captions = pairs.read_captions(tmp_path / name)
    assert captions == {"a": "a bell, struck", "b": ""}
    given = [pairs.ClipFiles(clip, {}, Reference(caption="a dataset's")) for clip in "abc"]
    told = [clip.reference.caption for clip in pairs.with_captions(given, captions)]
    assert told == ["a bell, struck", "", "a dataset's"]


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("c.csv", "clip,caption\na,b\n", "no column 'id'"),
        ("c.csv", "", "holds no caption"),
        ("c.json", "[1]", "expected {id: caption}"),
        ("c.json", "nonsense", "holds no captions"),
        ("gone.csv", None, "cannot be read"),
    ],
)
def test_a_file_without_captions(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        pairs.read_captions(tmp_path / name)


def test_a_problem_as_a_line():
    problems = Problems()
    for name in "fedcba":
        problems.add("length", name, "s", amount=0.3 if name == "c" else 0.2)
    (problem,) = problems.found()
    assert problem.names == tuple("abcdef") and problem.note == "largest difference 0.300 s"
    assert line(problem).startswith("s: 6 x lengths that differ")
    assert line(problem).endswith("(largest difference 0.300 s): a, b, c, d, e, ...")
    with pytest.raises(ValueError):
        problems.add("unheard_of", "a")
