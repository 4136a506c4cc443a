"""evaluate(): every bad input has its handling and its count; work goes on where it stopped."""

import json
import math
import os
import shutil
from dataclasses import replace

import numpy as np
import plain_measures
import pytest
from plain_measures import Level, use
from sound_files import cut_short, noise, write

from bi_audio_dataset import media
from bi_audio_dataset.schema import UserError
from visaudio.evaluation.cache import Cache
from visaudio.evaluation.compare import Run, merge
from visaudio.evaluation.measures import Unavailable
from visaudio.evaluation.problems import line
from visaudio.evaluation.reading import SoundFile
from visaudio.evaluation.results import Results
from visaudio.evaluation.runner import Options, evaluate

QUIET = Options(progress=False, resamples=20)


@pytest.fixture
def level(monkeypatch):
    use(monkeypatch, "level")


@pytest.fixture
def four(tmp_path):
    """(generated, reference): four clips; the generated ones 6 dB down, and 3 dB louder on the left."""
    for number in range(4):
        samples = noise(seed=number)
        write(tmp_path / "ref" / f"c{number}.wav", samples, subtype="FLOAT")
        gains = 0.5 * 10 ** (np.array([1.5, -1.5], np.float32) / 20)
        write(tmp_path / "gen" / f"c{number}.wav", samples * gains, subtype="FLOAT")
    return tmp_path / "gen", tmp_path / "ref"


def problems(results) -> dict[tuple[str, str], tuple[str, ...]]:
    return {(p.kind, p.system): p.names for p in results.problems}


def test_figures_are_those_of_the_files(level, four, tmp_path):
    results = evaluate({"s": four[0]}, four[1], tmp_path / "out", QUIET)
    figure = results.figures["s"]["level_error_db"]
    both_ears = np.mean(0.25 * 10 ** np.array([0.15, -0.15]))
    assert figure.value == pytest.approx(-10 * math.log10(both_ears), abs=0.02)
    assert figure.low <= figure.value <= figure.high and figure.clips == 4
    assert results.figures["s"]["ild_db"].value == pytest.approx(3, abs=0.1)
    assert [clip.id for clip in results.clips] == ["c0", "c1", "c2", "c3"]
    values = [clip.sounds["s"].values["ild_db"] for clip in results.clips]
    assert np.mean(values) == pytest.approx(results.figures["s"]["ild_db"].value)
    first = results.clips[0]
    assert first.reference == str(four[1] / "c0.wav") and first.sounds["s"].path == str(four[0] / "c0.wav")
    assert first.sounds["s"].duration_s == 0.5
    assert results.systems[0].clips == 4 and results.problems == () and results.comparisons == ()


# each: how the first clip's generated file differs, the problem's kind, whether the clip is refused
BAD = {
    "mono": (lambda path: write(path, noise(channels=1)), False),
    "channels": (lambda path: write(path, noise(channels=3)), True),
    "silent": (lambda path: write(path, np.zeros((4000, 2), np.float32)), False),
    "not_finite": (lambda path: write(path, np.full((4000, 2), np.nan, np.float32), subtype="FLOAT"), True),
    "too_large": (lambda path: write(path, 1e30 * noise(), subtype="FLOAT"), True),
    "low_rate": (lambda path: write(path, noise(rate=999), 999), True),
    "empty": (lambda path: write(path, noise(0)), True),
    "too_short": (lambda path: write(path, noise(0.09)), True),
    "truncated": (lambda path: cut_short(write(path)), True),
    "unreadable": (lambda path: path.write_bytes(b"no sound"), True),
    "length": (lambda path: write(path, noise(0.39)), False),
    "length_slightly": (lambda path: write(path, noise(0.45)), False),
    "rate": (lambda path: write(path, noise(rate=16000), 16000), False),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_generated_file(level, four, tmp_path, kind):
    make, is_refused = BAD[kind]
    make(four[0] / "c0.wav")
    results = evaluate({"s": four[0]}, four[1], tmp_path / "out", QUIET)
    assert problems(results) == {(kind, "s"): ("c0",)}
    (problem,) = results.problems
    assert [clip.id for clip in results.clips] == (
        ["c1", "c2", "c3"] if is_refused else ["c0", "c1", "c2", "c3"]
    )
    assert results.systems[0].clips == (3 if is_refused else 4) and results.systems[0].of == 4
    assert results.systems[0].counted == ("3 of 4 clips" if is_refused else "4 clips")
    if is_refused:
        assert problem.serious and problem.details[0]
    if kind.startswith("length"):
        assert results.clips[0].sounds["s"].duration_s == pytest.approx(0.39 if kind == "length" else 0.45)
        assert problem.note == f"largest difference {0.11 if kind == 'length' else 0.05:.3f} s"
    if kind == "silent":  # nowhere near the reference, and counted
        assert results.clips[0].sounds["s"].values["level_error_db"] > 60
    strict = replace(QUIET, strict=True)
    if problem.serious:
        with pytest.raises(UserError, match="--strict: s: 1 x .*c0"):
            evaluate({"s": four[0]}, four[1], tmp_path / "out", strict)
    else:
        assert evaluate({"s": four[0]}, four[1], tmp_path / "out", strict).systems[0].clips == 4


def test_what_an_older_version_let_through_is_read_again(level, four, tmp_path):
    """Facts of a file stay in the cache; those of a version that refused less are not asked."""
    path = write(four[0] / "c0.wav", 1e30 * noise(), subtype="FLOAT")
    facts = {"facts": np.array([4000, 8000, 2, 0], np.int64)}
    Cache(tmp_path / "out" / "cache").store("sound-1", SoundFile(path).digest, facts)
    results = evaluate({"s": four[0]}, four[1], tmp_path / "out", QUIET)
    assert problems(results) == {("too_large", "s"): ("c0",)}


def test_equal_lengths_at_different_rates_are_equal(level, four, tmp_path):
    """0.5 s at 11025 Hz are 5512 samples: half a sample is no difference."""
    write(four[0] / "c0.wav", noise(rate=11025)[:5512], 11025)
    results = evaluate({"s": four[0]}, four[1], tmp_path / "out", QUIET)
    assert problems(results) == {("rate", "s"): ("c0",)}


def test_a_bad_reference_takes_the_clip_from_every_system(level, four, tmp_path):
    (four[1] / "c2.wav").write_bytes(b"no sound")
    write(four[1] / "c3.wav", np.zeros((4000, 2), np.float32))
    results = evaluate({"a": four[0], "b": four[0]}, four[1], tmp_path / "out", QUIET)
    assert problems(results) == {("unreadable", ""): ("c2",), ("silent_reference", ""): ("c3",)}
    assert [clip.id for clip in results.clips] == ["c0", "c1", "c3"]
    assert [line(problem).split(" x ")[0] for problem in results.problems] == ["reference: 1"] * 2


def test_a_bad_file_of_either_side_is_told_apart(level, four, tmp_path):
    """They have one name, and a system may be called reference."""
    for folder, clip in ((four[0], "c2"), (four[1], "c3")):
        write(folder / f"{clip}.wav", np.full((4000, 2), np.nan, np.float32), subtype="FLOAT")
    results = evaluate({"s": four[0]}, four[1], tmp_path / "out", QUIET)
    text = "a file that holds NaN or infinity: clip refused"
    assert [line(problem).split(" [")[0] for problem in results.problems] == [
        f"reference: 1 x {text}: c3", f"s: 1 x {text}: c2",
    ]  # fmt: skip
    named = evaluate({"reference": four[0]}, four[1], tmp_path / "out", QUIET)
    assert [problem.names for problem in named.problems] == [("c3",), ("c2",)]
    assert Results.from_json(results.to_json(), results.folder).problems == results.problems
    run = Run("A", tmp_path, results)
    assert [p.whose for p in merge([run]).problems] == ["A, reference", "A"]
    with pytest.raises(UserError, match="^--strict: reference: 1 x a file that holds NaN"):
        evaluate({"s": four[0]}, four[1], tmp_path / "out", replace(QUIET, strict=True))


def test_missing_pairs(level, four, tmp_path):
    (four[0] / "c3.wav").unlink()
    (four[1] / "c1.wav").unlink()
    results = evaluate({"s": four[0]}, four[1], tmp_path / "out", QUIET)
    assert problems(results) == {("missing_generated", "s"): ("c3",), ("missing_reference", "s"): ("c1",)}
    assert [clip.id for clip in results.clips] == ["c0", "c2"]
    assert results.systems[0].counted == "2 of 3 clips"  # c1 is not the reference's, c3 nobody's
    first = evaluate({"s": four[0]}, four[1], tmp_path / "first", replace(QUIET, limit=2))
    assert first.systems[0].counted == "2 clips"
    Level.heard = 0
    with pytest.raises(UserError, match="--strict: s: 1 x no generated sound"):
        evaluate({"s": four[0]}, four[1], tmp_path / "strict", replace(QUIET, strict=True))
    assert Level.heard == 0  # told before anything was heard


def test_no_pair_at_all(level, four, tmp_path):
    write(tmp_path / "other" / "x.wav")
    with pytest.raises(UserError, match="s: none of the 1 sounds"):
        evaluate({"s": tmp_path / "other"}, four[1], tmp_path / "out", QUIET)


def test_nothing_that_could_be_scored(level, four, tmp_path):
    for path in four[0].iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="no clip could be scored: s: 4 x a file without samples"):
        evaluate({"s": four[0]}, four[1], tmp_path / "out", QUIET)


def test_one_clip_has_figures_without_intervals(level, four, tmp_path):
    results = evaluate({"s": four[0], "t": four[1]}, four[1], tmp_path / "out", replace(QUIET, limit=1))
    assert problems(results) == {("one_clip", "s"): ("c0",), ("one_clip", "t"): ("c0",)}
    figure = results.figures["s"]["ild_db"]
    assert figure.value == pytest.approx(3, abs=0.3) and math.isnan(figure.low) and math.isnan(figure.high)
    assert all(math.isnan(c.p_bootstrap) and math.isnan(c.p_wilcoxon) for c in results.comparisons)


def test_without_reference_only_what_needs_none(monkeypatch, four, tmp_path):
    use(monkeypatch, "level", "spread")
    said = []
    results = evaluate({"s": four[0]}, None, tmp_path / "out", QUIET, say=said.append)
    assert said == ["no reference: only what needs none is measured"]
    assert results.figures["s"]["ild_db"].clips == 4
    assert results.figures["s"]["level_error_db"].clips == results.figures["s"]["spread_db"].clips == 0
    (lacks, none) = results.problems
    assert (lacks.kind, lacks.note, len(lacks.names)) == ("lacks", "spread: no reference", 4)
    assert none.kind == "no_reference" and results.clips[0].reference is None
    use(monkeypatch, "spread")
    with pytest.raises(UserError, match="nothing could be measured: s: 4 x .*spread: no reference"):
        evaluate({"s": four[0]}, None, tmp_path / "out", QUIET)


def test_a_measure_asked_for_by_name_that_no_clip_is_fit_for(monkeypatch, four, tmp_path):
    use(monkeypatch, "level", "spread", "looks")
    Level.heard = 0
    for reference, wanted, lacking in (
        (None, ("level", "spread"), "spread: no clip has what it needs .no reference."),
        (four[1], ("level", "looks"), "looks: no clip has what it needs .no video."),
    ):
        with pytest.raises(UserError, match=lacking):
            evaluate({"s": four[0]}, reference, tmp_path / "out", replace(QUIET, measures=wanted))
    assert Level.heard == 0  # told before anything was heard
    # a file that is no picture says so only when it is opened
    (tmp_path / "videos").mkdir()
    for number in range(4):
        (tmp_path / "videos" / f"c{number}.mp4").write_bytes(b"no picture")
    options = replace(QUIET, measures=("level", "looks"), videos=tmp_path / "videos")
    with pytest.raises(UserError, match="looks: no clip has what it needs: s: 4 x .*no video"):
        evaluate({"s": four[0]}, four[1], tmp_path / "out", options)
    # not asked for, it is counted and the others go on
    unasked = evaluate({"s": four[0]}, four[1], tmp_path / "out", replace(options, measures=None))
    assert unasked.figures["s"]["level_error_db"].clips == 4
    assert ("lacks", "s") in problems(unasked)


def test_what_was_heard_is_summed_up_from_the_cache(monkeypatch, four, tmp_path):
    use(monkeypatch, "spread")
    results = evaluate({"s": four[0], "t": four[1]}, four[1], tmp_path / "out", QUIET)
    figure = results.figures["s"]["spread_db"]
    assert figure.value == pytest.approx(5.77, abs=0.05) and figure.low < figure.high and figure.clips == 4
    assert results.figures["t"]["spread_db"].value == 0
    assert results.measures[0].resamples == 20
    (comparison,) = results.comparisons
    assert comparison.difference.value == pytest.approx(figure.value) and math.isnan(comparison.p_wilcoxon)


def test_systems_are_compared_over_the_clips_that_both_have(level, four, tmp_path):
    shutil.copytree(four[1], tmp_path / "copy")
    (tmp_path / "copy" / "c0.wav").unlink()
    results = evaluate({"s": four[0], "copy": tmp_path / "copy"}, four[1], tmp_path / "out", QUIET)
    assert (results.figures["s"]["ild_db"].clips, results.figures["copy"]["ild_db"].clips) == (4, 3)
    error, ild = results.comparisons
    assert (error.a, error.b, error.difference.clips) == ("s", "copy", 3)
    assert ild.difference.value == pytest.approx(3, abs=0.01)
    assert error.p_bootstrap == pytest.approx(2 / 21) and error.p_wilcoxon == 0.25  # of three, the least


# -------------------- measures


def test_a_measure_that_cannot_be_had(monkeypatch, four, tmp_path):
    use(monkeypatch, "level", "absent")
    said = []
    results = evaluate({"s": four[0]}, four[1], tmp_path / "out", QUIET, say=said.append)
    assert said == ["without absent: pip install absent"]
    assert results.unavailable == {"absent": "pip install absent"}
    assert [measure.name for measure in results.measures] == ["level"]
    with pytest.raises(Unavailable, match="absent: pip install absent"):
        evaluate({"s": four[0]}, four[1], tmp_path / "out", replace(QUIET, measures=("level", "absent")))
    with pytest.raises(UserError, match="no measure 'odd', expected of level, absent"):
        evaluate({"s": four[0]}, four[1], tmp_path / "out", replace(QUIET, measures=("odd",)))


def test_weights_that_no_measure_asks_for(monkeypatch, four, tmp_path):
    use(monkeypatch, "level", "picky")
    options = replace(QUIET, weights={"picky_weights": "file"})
    assert evaluate({"s": four[0]}, four[1], tmp_path / "out", options).figures["s"]["loud_db"].clips == 4
    with pytest.raises(UserError, match="--weights piky_weights=.*ask for picky_weights"):
        evaluate({"s": four[0]}, four[1], tmp_path / "out", replace(QUIET, weights={"piky_weights": "file"}))


def test_a_clip_that_a_measure_cannot_take_is_counted(monkeypatch, four, tmp_path):
    use(monkeypatch, "level", "picky")
    write(four[0] / "c1.wav", noise(level=1e-3), subtype="FLOAT")
    results = evaluate({"s": four[0]}, four[1], tmp_path / "out", QUIET)
    (problem,) = results.problems
    assert (problem.kind, problem.note, problem.names) == ("failed", "picky", ("c1",))
    assert problem.details == ("too quiet to say",)
    assert results.figures["s"]["loud_db"].clips == 3 and results.figures["s"]["level_error_db"].clips == 4
    assert math.isnan(results.clips[1].sounds["s"].values["loud_db"])


def test_a_measure_in_error_names_itself_and_the_clip(monkeypatch, four, tmp_path):
    use(monkeypatch, "level")
    monkeypatch.setattr(Level, "compare", lambda *_: 1 / 0)
    with pytest.raises(RuntimeError, match="measure level failed on clip c0 of s"):
        evaluate({"s": four[0]}, four[1], tmp_path / "out", QUIET)


def test_two_measures_must_not_share_a_figure(monkeypatch, four, tmp_path):
    use(monkeypatch, "level", "picky")
    monkeypatch.setattr(plain_measures.Picky, "figures", Level.figures[:1])
    with pytest.raises(ValueError, match="picky and level both have a figure 'level_error_db'"):
        evaluate({"s": four[0]}, four[1], tmp_path / "out", QUIET)


def test_pictures_come_from_videos_reference_or_the_sound_itself(monkeypatch, four, tmp_path):
    use(monkeypatch, "looks")
    frames = np.zeros((5, 32, 32, 3), np.uint8)
    for path in ("videos/c0.mp4", "ref/c1.mp4", "gen/c2.mp4"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        media.write_video(tmp_path / path, frames, 25)
    (tmp_path / "videos" / "c3.mp4").write_bytes(b"no video")
    options = replace(QUIET, videos=tmp_path / "videos")
    results = evaluate({"s": four[0]}, four[1], tmp_path / "out", options)
    found = {clip.id: clip for clip in results.clips}
    size = (tmp_path / "videos" / "c0.mp4").stat().st_size
    assert [found[f"c{n}"].sounds["s"].values["picture_bytes"] for n in range(3)] == [size] * 3
    assert math.isnan(found["c3"].sounds["s"].values["picture_bytes"])
    assert found["c2"].video == str(tmp_path / "gen" / "c2.mp4")
    kinds = problems(results)
    assert kinds["no_picture", "s"] == kinds["lacks", "s"] == ("c3",)


def test_what_is_heard_of_a_picture_is_kept_by_the_picture(monkeypatch, four, tmp_path):
    """One and the same sound with another video is heard again."""
    use(monkeypatch, "looks")
    (tmp_path / "v").mkdir()
    options = replace(QUIET, videos=tmp_path / "v", limit=1)
    sizes = []
    for number in (5, 50):
        media.write_video(tmp_path / "v" / "c0.mp4", np.random.default_rng(0).integers(
            0, 255, (number, 32, 32, 3), dtype=np.uint8), 25)  # fmt: skip
        results = evaluate({"s": four[0]}, four[1], tmp_path / "out", options)
        sizes.append(results.figures["s"]["picture_bytes"].value)
    assert sizes[0] < sizes[1]


def test_an_entry_is_named_after_all_that_it_depends_on(tmp_path):
    """Two scenes share what was heard only if the measure cannot tell them apart."""
    from types import SimpleNamespace

    from visaudio.data.dataset import Clip
    from visaudio.evaluation.measures import Scene
    from visaudio.evaluation.scoring import entry_name

    video = tmp_path / "a.mp4"
    video.write_bytes(b"x")
    truth = Clip("a", "test", "", 1.0, 90.0, 16, 9, True, 25.0, ())
    scene = Scene("a", 1.0, "a bell", video, truth)
    others = {
        "duration": replace(scene, duration_s=0.5),
        "id": replace(scene, id="b"),
        "caption": replace(scene, caption="a drum"),
        "lens": replace(scene, truth=replace(truth, hfov_deg=60.0)),
        "truth": replace(scene, truth=replace(truth, width=32)),
    }
    expected = {
        (): {"duration"},
        ("reference",): {"duration"},
        ("caption",): {"duration", "id", "caption"},
        ("video",): {"duration", "id", "lens"},
        ("truth",): {"duration", "id", "lens", "truth"},
    }
    for needs, told_apart in expected.items():
        measure = SimpleNamespace(needs=frozenset(needs))
        name = entry_name("f00", scene, measure)
        assert {k for k, other in others.items() if entry_name("f00", other, measure) != name} == told_apart
        assert entry_name("f01", scene, measure) != name == entry_name("f00", replace(scene), measure)


# -------------------- going on


def test_what_was_heard_is_not_decoded_again(level, four, tmp_path, monkeypatch):
    first = evaluate({"s": four[0]}, four[1], tmp_path / "out", QUIET)

    def decodes(*_):
        raise AssertionError("decoded again")

    Level.heard = 0
    monkeypatch.setattr("visaudio.evaluation.reading.read_sound", decodes)
    assert evaluate({"s": four[0]}, four[1], tmp_path / "out", QUIET).to_json() == first.to_json()
    assert Level.heard == 0


def test_of_one_more_system_only_its_own_sounds_are_heard(level, four, tmp_path):
    evaluate({"s": four[0]}, four[1], tmp_path / "out", QUIET)
    for number in range(4):
        write(tmp_path / "more" / f"c{number}.wav", noise(seed=10 + number), subtype="FLOAT")
    Level.heard = 0
    results = evaluate({"s": four[0], "more": tmp_path / "more"}, four[1], tmp_path / "out", QUIET)
    assert Level.heard == 4 and [system.clips for system in results.systems] == [4, 4]


def test_a_file_that_changed_is_heard_again(level, four, tmp_path):
    evaluate({"s": four[0]}, four[1], tmp_path / "out", QUIET)
    write(four[0] / "c1.wav", noise(seed=9), subtype="FLOAT")
    Level.heard = 0
    results = evaluate({"s": four[0]}, four[1], tmp_path / "out", QUIET)
    assert Level.heard == 1
    assert abs(results.clips[1].sounds["s"].values["ild_db"]) < 1


def test_another_definition_or_a_damaged_entry_is_heard_again(level, four, tmp_path, monkeypatch):
    first = evaluate({"s": four[0]}, four[1], tmp_path / "out", QUIET)
    entries = sorted((tmp_path / "out" / "cache" / "level-1").rglob("*.npz"))
    assert len(entries) == 8
    entries[3].write_bytes(entries[3].read_bytes()[:100])
    Level.heard = 0
    assert evaluate({"s": four[0]}, four[1], tmp_path / "out", QUIET).to_json() == first.to_json()
    assert Level.heard == 1
    monkeypatch.setattr(Level, "key", property(lambda self: "level-2"))
    evaluate({"s": four[0]}, four[1], tmp_path / "out", QUIET)
    assert Level.heard == 9


def test_an_interrupted_run_goes_on(level, four, tmp_path, monkeypatch):
    original = Level.hear

    def stops(self, sound, scene):
        if scene.id == "c2":
            raise KeyboardInterrupt
        return original(self, sound, scene)

    monkeypatch.setattr(Level, "hear", stops)
    with pytest.raises(KeyboardInterrupt):
        evaluate({"s": four[0]}, four[1], tmp_path / "out", QUIET)
    monkeypatch.setattr(Level, "hear", original)
    Level.heard = 0
    went_on = evaluate({"s": four[0]}, four[1], tmp_path / "out", QUIET)
    assert Level.heard == 4  # of the two clips that were left
    assert went_on.to_json() == evaluate({"s": four[0]}, four[1], tmp_path / "anew", QUIET).to_json()


@pytest.mark.slow
def test_two_workers_find_what_one_finds(monkeypatch, four, tmp_path):
    use(monkeypatch, "level", "spread", "picky")
    write(four[0] / "c1.wav", noise(level=1e-3, channels=1), subtype="FLOAT")
    write(four[0] / "c2.wav", noise(channels=3))
    found = [
        json.loads(
            evaluate({"s": four[0]}, four[1], tmp_path / f"out{n}", replace(QUIET, workers=n)).to_json()
        )
        for n in (1, 2)
    ]
    assert [results["made"]["settings"].pop("workers") for results in found] == [1, 2]
    assert found[0] == found[1]
    assert {p["kind"] for p in found[0]["problems"]} == {"mono", "channels", "failed"}


@pytest.mark.slow
def test_a_worker_that_dies_is_one_line(monkeypatch, four, tmp_path):
    monkeypatch.setattr(
        "visaudio.evaluation.measures.REGISTRY",
        {"level": "plain_measures:make_level", "dies": "plain_measures:make_dies"},
    )
    with pytest.raises(UserError, match="a worker process ended before its time"):
        evaluate({"s": four[0]}, four[1], tmp_path / "out", replace(QUIET, workers=2))


@pytest.mark.slow
def test_what_fails_in_starting_a_worker_is_told_as_it_is(monkeypatch, four, tmp_path):
    """A measure that can be had in this process and not in another: its own words, no broken pool."""
    use(monkeypatch, "here")
    monkeypatch.setenv("PLAIN_MEASURES_PROCESS", str(os.getpid()))
    with pytest.raises(Unavailable, match="only in the first process"):
        evaluate({"s": four[0]}, four[1], tmp_path / "out", replace(QUIET, workers=2))


def test_the_cores_are_used():
    from visaudio.evaluation.workers import usual_workers

    assert 1 <= usual_workers() <= 8
    for name in ("workers", "resamples", "limit"):
        with pytest.raises(UserError, match=f"{name} must be at least 1"):
            Options(**{name: 0})
