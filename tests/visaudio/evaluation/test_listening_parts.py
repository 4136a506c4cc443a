"""Plans of trials, loudness, the answers' file, and what answers come to, each against what must come out."""

import json
import math
import threading
from collections import Counter
from functools import partial
from itertools import combinations, pairwise

import numpy as np
import pytest
from listening_world import RATE, make_sounds, make_video, noise, write, write_in_place_of
from scipy.stats import beta
from tqdm import tqdm

from bi_audio_dataset.schema import UserError
from visaudio.evaluation.listen import main, make_test
from visaudio.evaluation.listening import answers, trials
from visaudio.evaluation.listening.loudness import _weighting, loudness_lufs, matching_gains_db, true_peak
from visaudio.evaluation.listening.sounds import match
from visaudio.evaluation.listening.summary import binomial, interval, summarise, table
from visaudio.evaluation.problems import KINDS as PROBLEMS

SYSTEMS = ["a", "b", "c", "d"]
CLIPS = [f"clip{k}" for k in range(10)]


# -------------------- plans


@pytest.mark.parametrize("listener", ["eva", "otto", "3"])
def test_a_plan_is_balanced(listener):
    plan = trials.plan(SYSTEMS, CLIPS, listener, 48, seed=1)
    rated = Counter(t.order[0] for t in plan if t.kind == "rating")
    assert rated == dict.fromkeys(SYSTEMS, 6)
    orders = Counter(t.order for t in plan if t.kind == "pair")
    assert orders == {o: 2 for pair in combinations(SYSTEMS, 2) for o in (pair, pair[::-1])}
    heard = Counter(t.clip for t in plan)
    assert set(heard.values()) == {4, 5} and set(heard) == set(CLIPS)
    assert all(one.clip != other.clip for one, other in pairwise(plan))
    asked = [(t.kind, t.clip, *sorted(t.order)) for t in plan]
    assert len(set(asked)) == len(asked)
    assert [t.number for t in plan] == list(range(48))


def test_among_pairs_that_come_once_half_are_turned():
    turned = Counter(
        t.order == tuple(sorted(t.order)) for t in trials.plan(SYSTEMS, CLIPS, "eva", 6, 0, ("pair",))
    )
    assert turned == {True: 3, False: 3}
    # of a single trial the order is a draw: neither way for all listeners
    ways = Counter(trials.plan(["a", "b"], CLIPS, f"l{k}", 1, 0, ("pair",))[0].order for k in range(200))
    assert 60 < ways["a", "b"] < 140


def test_plans_follow_from_seed_and_listener_alone():
    plan = trials.plan(SYSTEMS, CLIPS, "eva", 20, seed=1)
    assert plan == trials.plan(SYSTEMS, CLIPS, "eva", 20, seed=1)
    assert plan != trials.plan(SYSTEMS, CLIPS, "otto", 20, seed=1)
    assert plan != trials.plan(SYSTEMS, CLIPS, "eva", 20, seed=2)
    # over listeners every system meets every clip
    met = {
        (t.order[0], t.clip)
        for k in range(30)
        for t in trials.plan(SYSTEMS, CLIPS, f"l{k}", 10, 0, ("rating",))
    }
    assert len(met) == 40


def test_few_clips_and_one_system():
    assert [t.clip for t in trials.plan(["a"], ["x"], "eva", 3, 0, ("rating",))] == ["x"] * 3
    two = trials.plan(["a", "b"], ["x", "y"], "eva", 8, 0)
    assert Counter(t.clip for t in two) == {"x": 4, "y": 4}
    with pytest.raises(ValueError, match="two systems"):
        trials.plan(["a"], ["x"], "eva", 3, 0)


def test_a_fingerprint_changes_with_what_a_plan_follows_from():
    base = (SYSTEMS, CLIPS, 40, 0, ("rating", "pair"))
    others = [(SYSTEMS[:3], *base[1:]), (SYSTEMS, CLIPS[:9], *base[2:]), (*base[:2], 41, *base[3:]),
              (*base[:3], 1, base[4]), (*base[:4], ("pair",))]  # fmt: skip
    prints = [trials.fingerprint(*given) for given in (base, *others)]
    assert len(set(prints)) == 6
    assert trials.fingerprint(SYSTEMS[::-1], CLIPS[::-1], 40, 0, ("pair", "rating")) == prints[0]


# -------------------- loudness


def tone(frequency_hz, rate, seconds=3.0):
    return np.sin(2 * np.pi * frequency_hz * np.arange(round(seconds * rate)) / rate)


@pytest.mark.parametrize("rate", [16000, 22050, 44100, 48000, 96000])
def test_a_full_tone_in_one_ear_is_minus_three(rate):
    """ITU-R BS.1770: 997 Hz at full scale in one front channel reads -3.01 LKFS."""
    one = tone(997.0, rate)
    assert loudness_lufs(np.stack([one, 0 * one]), rate) == pytest.approx(-3.01, abs=0.05)
    assert loudness_lufs(np.stack([one, one]), rate) == pytest.approx(0.0, abs=0.05)
    assert loudness_lufs(0.1 * np.stack([one, one]), rate) == pytest.approx(-20.0, abs=0.05)


def test_the_filters_are_those_of_the_recommendation():
    """BS.1770-5, tables 1 and 2, for 48 kHz."""
    (b1, a1), (b2, a2) = _weighting(48000)
    assert b1 == pytest.approx([1.53512485958697, -2.69169618940638, 1.19839281085285], abs=1e-10)
    assert a1[1:] == pytest.approx([-1.69065929318241, 0.73248077421585], abs=1e-10)
    assert b2 == pytest.approx([1.0, -2.0, 1.0])
    assert a2[1:] == pytest.approx([-1.99004745483398, 0.99007225036621], abs=1e-10)


def test_silence_between_sounds_does_not_count():
    """The gates: a tone for a fifth of the time is as loud as the tone; in far quieter sound, too."""
    one = tone(997.0, 48000, 2.0)
    gap = np.zeros(8 * 48000)
    alone = loudness_lufs(np.stack([one, one]), 48000)
    for between in (gap, 0.01 * tone(997.0, 48000, 8.0)):
        wave = np.concatenate([one, between])
        # blocks that straddle the end pull the mean down a little
        assert loudness_lufs(np.stack([wave, wave]), 48000) == pytest.approx(alone, abs=0.6)
    assert loudness_lufs(np.zeros((2, 48000)), 48000) == -math.inf
    assert loudness_lufs(np.zeros((2, 0)), 48000) == -math.inf
    assert math.isfinite(loudness_lufs(np.stack([one, one])[:, :4800], 48000))  # shorter than a block


def test_true_peak_lies_between_samples():
    """A sine of a quarter of the rate, sampled at 45 degrees: samples of 0.707, a peak of 1."""
    wave = np.sin(2 * np.pi * (np.arange(4800) + 0.5) / 4)
    audio = np.stack([wave, 0 * wave])
    assert np.abs(audio).max() == pytest.approx(math.sqrt(0.5))
    assert true_peak(audio, 48000) == pytest.approx(1.0, abs=0.02)
    assert true_peak(np.zeros((2, 0)), 48000) == 0


def test_gains_bring_all_to_one_level_within_the_peak():
    gains, target = matching_gains_db([-30.0, -20.0, -math.inf], [0.1, 0.5, 0.0])
    assert target == -23.0 and gains == pytest.approx([7.0, -3.0, 0.0])
    # a click: at -23 its peak would be 7 dB over, so all are turned down by that
    gains, target = matching_gains_db([-40.0, -20.0], [0.5, 0.5])
    assert target == pytest.approx(-40.0 - 1.0 - 20 * math.log10(0.5))
    assert gains == pytest.approx([target + 40.0, target + 20.0])
    assert gains[0] + 20 * math.log10(0.5) == pytest.approx(-1.0)


def test_matching_reads_mono_and_cuts_to_the_picture(tmp_path):
    one = write(tmp_path / "a.wav", noise(0, 1.0)[:1])
    two = write(tmp_path / "b.wav", noise(0, 0.9, 1.0, 0.5))
    found = match({"a": one, "b": two}, 0.7)
    assert {audio.shape for audio in found.sounds.values()} == {(2, round(0.7 * 48000))}
    assert np.array_equal(found.sounds["a"][0], found.sounds["a"][1])
    assert loudness_lufs(found.sounds["a"], 48000) == pytest.approx(
        loudness_lufs(found.sounds["b"], 48000), abs=0.01
    )


# -------------------- the answers' file


def rating(listener, system, value, clip="x", trial=0, question="realism", plan="p"):
    return {"kind": "rating", "listener": listener, "plan": plan, "seed": 0, "trial": trial, "clip": clip,
            "systems": [system], "order": [system], "ratings": {question: value}}  # fmt: skip


def pair(listener, order, choice, trial=0, question="realism"):
    return {"kind": "pair", "listener": listener, "plan": "p", "seed": 0, "trial": trial, "clip": "x",
            "systems": sorted(order), "order": list(order), "choices": {question: choice}}  # fmt: skip


def test_a_torn_line_is_cut_off_and_nothing_else(tmp_path):
    path = tmp_path / "answers.jsonl"
    answers.append(path, rating("eva", "a", 3))
    with path.open("ab") as file:
        file.write(b'{"schema_version": 1, "kind": "rat')
    assert len(answers.read(path)) == 1
    answers.append(path, rating("eva", "a", 4, trial=1))
    assert [row["ratings"]["realism"] for row in answers.read(path)] == [3, 4]
    assert path.read_bytes().count(b"\n") == 2
    assert answers.read(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize("kept", range(1, 40))
def test_wherever_an_append_was_interrupted_it_is_made_good(tmp_path, kept):
    path = tmp_path / "answers.jsonl"
    answers.append(path, rating("eva", "a", 3))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:kept])
    answers.append(path, rating("eva", "a", 4, trial=1))
    assert [row["trial"] for row in answers.read(path)] == [0, 1]


def test_an_answer_that_lacks_its_newline_alone_counts(tmp_path):
    """An editor took it, or the very last byte was lost."""
    path = tmp_path / "answers.jsonl"
    answers.append(path, rating("eva", "a", 3))
    path.write_bytes(path.read_bytes()[:-1])
    assert len(answers.read(path)) == 1
    answers.append(path, rating("eva", "a", 4, trial=1))
    assert [row["ratings"]["realism"] for row in answers.read(path)] == [3, 4]


FOREIGN = [
    b"my only line",
    b'{"name": "of another program"}',
    b'{"schema_version": 1, "of": "another program"}',
    b'{\n "schema_version": 1,\n "systems"',
    b"x" * 100_000,
    b'{"schema_version": 1, "kind": "rating"}\nend',
]


@pytest.mark.parametrize("data", FOREIGN)
def test_what_another_program_wrote_is_left_alone(tmp_path, capsys, data):
    given = make_sounds(tmp_path)
    path = tmp_path / "broken.json"
    path.write_bytes(data)
    with pytest.raises(UserError, match="broken.json"):
        answers.append(path, rating("eva", "a", 3))
    for flags in (["--systems", *given, "--output", str(path)], ["--summary", str(path)]):
        assert main(flags) == 2
        *notes, error = capsys.readouterr().err.splitlines()
        assert error.startswith(f"error: {path}, last line: not an answer of the listening test")
        assert not any("error" in note for note in notes)
    assert path.read_bytes() == data


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ratings": {"realism": 7}}, "realism: 7, expected one of 1, 2, 3, 4, 5"),
        ({"ratings": {"beauty": 3}}, "unknown question 'beauty'"),
        ({"ratings": {}}, "no answers"),
        ({"kind": "guess"}, "kind 'guess'"),
        ({"schema_version": 9}, "schema version 9, expected 1"),
        ({"order": ["b"]}, "order \\['b'\\] of systems \\['a'\\]"),
        ({"order": 5}, "order 5 of systems"),
        ({"systems": [1], "order": [1]}, "systems that are no text"),
        ({"systems": 5}, "order"),
        ({"listener": 5}, "listener is no text"),
        ({"trial": "x"}, "trial is no number"),
    ],
)
def test_a_line_that_is_no_answer_is_named(tmp_path, change, reason):
    path = tmp_path / "answers.jsonl"
    answers.append(path, rating("eva", "a", 3))
    answers.append(path, rating("eva", "a", 3) | change)
    with pytest.raises(UserError, match=f"answers.jsonl:2: {reason}"):
        answers.read(path)


def test_text_that_is_no_json_is_named(tmp_path):
    path = tmp_path / "answers.jsonl"
    for line in ("hello", "[1]", '"x"', "{}"):
        path.write_text(f"\n{line}\n")
        with pytest.raises(UserError, match="answers.jsonl:2: not an answer of the listening test"):
            answers.read(path)


# -------------------- what answers come to


def test_scores_are_means_with_intervals_over_listeners_and_clips():
    """Listeners who differ and clips that do not: the interval is that of the listeners' means."""
    rng = np.random.default_rng(0)
    level = {f"l{k}": v for k, v in enumerate(rng.integers(1, 6, 12))}
    rows = [rating(name, "a", int(v), f"c{k}", k) for name, v in level.items() for k in range(9)]
    (score,) = summarise(rows).scores
    values = np.array(list(level.values()), float)
    assert score.mean == pytest.approx(values.mean())
    assert (score.ratings, score.listeners, score.clips) == (108, 12, 9)
    sigma = values.std() / math.sqrt(12)  # of the mean of 12 draws from 12
    assert score.high - score.low == pytest.approx(2 * 1.96 * sigma, rel=0.12)
    # as if 108 ratings were independent, it would be a third as wide
    assert score.high - score.low > 2 * 2 * 1.96 * values.std() / math.sqrt(108)


def test_equal_ratings_have_no_width_and_one_of_each_no_interval():
    values = np.full(12, 4.0)
    assert interval(values, ["a", "b"] * 6, ["x", "y", "z"] * 4) == (4.0, 4.0)
    assert all(math.isnan(end) for end in interval(values, ["a"] * 12, ["x"] * 12))
    # with one listener it is the plain bootstrap over clips
    ratings = np.arange(1.0, 6.0).repeat(20)
    low, high = interval(ratings, ["a"] * 100, [f"c{k}" for k in range(100)])
    assert high - low == pytest.approx(2 * 1.96 * ratings.std() / 10, rel=0.08)


def test_win_rates_are_exact_binomials_and_follow_the_order_played():
    rows = [pair(f"l{k}", ("b", "a"), "first" if k < 3 else "second", k) for k in range(10)]
    rows += [pair(f"l{k}", ("a", "b"), "same", 10 + k) for k in range(4)]
    (found,) = summarise(rows).preferences
    assert (found.a, found.b, found.wins_a, found.wins_b, found.same) == ("a", "b", 7, 3, 4)
    assert found.rate == 0.7
    # Clopper and Pearson, by the beta distribution
    assert found.low == pytest.approx(beta.ppf(0.025, 7, 4)) and found.high == pytest.approx(
        beta.ppf(0.975, 8, 3)
    )
    assert found.p == pytest.approx(2 * sum(math.comb(10, k) for k in range(4)) / 2**10)
    assert summarise(rows).first_chosen[:3] == (3, 10, 0.3)


def test_binomial_ends():
    assert binomial(0, 5)[:2] == (0.0, 0.0) and binomial(5, 5)[2] == 1.0
    assert all(math.isnan(v) for v in binomial(0, 0))


def test_each_question_and_system_has_its_own_score():
    rows = [rating("eva", "a", 5, trial=0), rating("eva", "b", 1, trial=1),
            rating("eva", "a", 2, trial=2, question="spatial_impression")]  # fmt: skip
    means = {(s.system, s.question): s.mean for s in summarise(rows).scores}
    assert means == {("a", "realism"): 5, ("a", "spatial_impression"): 2, ("b", "realism"): 1}


def test_what_was_answered_twice_counts_once():
    rows = [
        rating("eva", "a", 5),
        rating("eva", "a", 1),
        rating("eva", "a", 1, plan="q"),
        rating("otto", "a", 3),
    ]
    summary = summarise(rows)
    assert summary.scores[0].ratings == 3 and summary.scores[0].mean == 3.0
    assert summary.plans == 2 and summary.listeners == ("eva", "otto")


def test_no_answers_yet():
    with pytest.raises(UserError, match="no answers yet"):
        summarise([{"kind": "check", "passed": True}])


def test_table_and_json_say_the_same():
    rows = [rating(name, s, v, c, k) for name in ("eva", "otto")
            for k, (s, v, c) in enumerate([("a", 4, "x"), ("b", 2, "x"), ("a", 5, "y")])]  # fmt: skip
    rows += [pair(name, ("a", "b"), "first", 9) for name in ("eva", "otto")]
    rows += [{"kind": "check", "passed": False}]
    summary = summarise(rows)
    text = table(summary)
    assert "2 listeners; headphones checks: 0 passed, 1 failed" in text
    assert "Realism  4.50 [4.00, 5.00] n 4  2.00 [2.00, 2.00] n 2" in text
    assert "note: b has one clip: its interval is over listeners alone" in text
    assert "a over b  Realism  100 % [16, 100]" in text and "2:0" in text
    assert "the first of two was chosen 2 times of 2: 100 % [16, 100]" in text
    stored = json.loads(json.dumps(summary.to_json(), allow_nan=False))
    assert stored["scores"][0]["mean"] == 4.5 and stored["preferences"][0]["rate"] == 1.0
    assert json.dumps(summarise([rating("eva", "a", 4)]).to_json(), allow_nan=False).count("null") == 5


# -------------------- what is in a test, and the command


def test_clips_that_not_every_system_has_are_told(tmp_path):
    given = make_sounds(tmp_path, clips=4)
    (tmp_path / "beta" / "clip0.flac").unlink()
    (tmp_path / "alpha" / "clip1.flac").write_bytes(b"no sound")
    write(tmp_path / "beta" / "clip2.wav", np.zeros((4, 1000), np.float32))
    (tmp_path / "beta" / "clip2.flac").unlink()
    said = []
    test = make_test(given, tmp_path / "out" / "a.jsonl", say=said.append)
    assert test.clips == ["clip3"] and [list(f) for f in test.systems.values()] == [["clip3"]] * 2
    text = "\n".join(said)
    assert "beta: 1 x no generated sound" in text and "clip0" in text
    assert "alpha: 1 x a file that cannot be read" in text
    assert "beta: 1 x a file of more than two channels: clip refused: clip2 [clip2.wav: 4 channels]" in text
    assert test.output.is_file()


# each: what the file is made of (samples, rate), and what is told of it
NOT_FOR_LISTENERS = {
    "too_large": (lambda: (1e30 * noise(0), RATE), "peak "),
    "low_rate": (lambda: (noise(0), 500), "sampling rate 500 Hz"),
    "too_short": (lambda: (noise(0)[:, :1599], RATE), "0.0999 s, expected at least 0.1 s"),
    "empty": (lambda: (noise(0)[:, :0], RATE), "no samples"),
    "not_finite": (lambda: (noise(0) * np.inf, RATE), "holds NaN or infinity"),
}


@pytest.mark.parametrize("kind", NOT_FOR_LISTENERS)
def test_what_the_evaluation_refuses_is_not_listened_to(tmp_path, kind):
    make, why = NOT_FOR_LISTENERS[kind]
    given = make_sounds(tmp_path, clips=2)
    write_in_place_of(tmp_path / "beta" / "clip1.flac", *make())
    said = []
    assert make_test(given, tmp_path / "a.jsonl", say=said.append).clips == ["clip0"]
    (told,) = [text for text in said if text.startswith(f"beta: 1 x {PROBLEMS[kind][0]}")]
    assert "clip1 [clip1.wav: " in told and why in told


def test_no_clip_that_can_be_read_says_why(tmp_path):
    given = make_sounds(tmp_path, clips=2)
    for name in ("alpha/clip0", "beta/clip1"):
        write_in_place_of(tmp_path / f"{name}.flac", noise(0) * np.nan)
    with pytest.raises(UserError, match="of 2 that all have the first is refused: alpha's clip0.wav: holds"):
        make_test(given, tmp_path / "a.jsonl")


def test_a_bar_is_shown_where_reading_takes_long(tmp_path, monkeypatch, capsys):
    given = make_sounds(tmp_path, clips=2)
    make_test(given, tmp_path / "a.jsonl", progress=False)
    slow = partial(tqdm, mininterval=0)
    monkeypatch.setattr("visaudio.evaluation.listen.tqdm", lambda *a, **k: slow(*a, **(k | {"delay": 0})))
    assert capsys.readouterr().err == ""
    make_test(given, tmp_path / "b.jsonl", progress=True)
    assert "4/4" in capsys.readouterr().err


def test_pictures_of_the_systems_own_files(tmp_path):
    given = make_sounds(tmp_path, clips=2)
    make_video(tmp_path / "beta" / "clip1.mp4")
    test = make_test(given, tmp_path / "a.jsonl")
    assert test.videos == {"clip1": tmp_path / "beta" / "clip1.mp4"}


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--systems", "A={0}/alpha"], "pairs need two systems"),
        (["--systems", "A={0}/alpha", "B={0}/none"], "no such folder"),
        (["--systems", "A={0}/alpha", "A={0}/beta"], "two systems are called 'A': give names, --systems"),
        (["--systems", "A={0}/alpha", "B={0}/other"], "no clip that every system has"),
        (["--systems", "A={0}/alpha", "B={0}/beta", "--videos", "{0}/alpha"], "holds no video"),
        (["--systems", "A={0}/alpha", "B={0}/beta", "--listener", "a b"], "--listener 'a b'"),
        (["--systems", "A={0}/alpha", "B={0}/beta", "--json", "x"], "give --systems and --output"),
        ([], "give --systems and --output"),
        (["--summary", "{0}/none.jsonl"], "no such file"),
        (["--summary", "{0}/a.jsonl", "--systems", "A={0}/alpha"], "stands without"),
    ],
)
def test_mistakes_get_one_line(tmp_path, capsys, flags, reason):
    make_sounds(tmp_path)
    write(tmp_path / "other" / "else.flac", noise(0))
    output = [] if "--summary" in flags else ["--output", str(tmp_path / "a.jsonl")]
    assert main([*(flag.format(tmp_path) for flag in flags), *(output if flags else [])]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and reason in err and err.count("\n") == 1


@pytest.mark.parametrize("flags", [["--port", "70000"], ["--trials", "0"], ["--ask", "nothing"]])
def test_flags_that_argparse_refuses(flags):
    with pytest.raises(SystemExit):
        main(["--systems", "a", "--output", "b", *flags])


def test_summary_command_prints_and_stores(tmp_path, capsys):
    one, two = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    answers.append(one, rating("eva", "a", 4))
    answers.append(two, rating("otto", "a", 2))
    assert main(["--summary", str(one), str(two), "--json", str(tmp_path / "s.json")]) == 0
    assert "Realism  3.00" in capsys.readouterr().out
    assert json.loads((tmp_path / "s.json").read_text())["scores"][0]["mean"] == 3.0
    assert main(["--summary", str(one), "--json", str(one / "s.json")]) == 2
    assert "a.jsonl: cannot be made a folder" in capsys.readouterr().err
    before = one.read_bytes()
    assert main(["--summary", str(one), "--json", str(one)]) == 2
    assert "is a file of answers, which would be lost" in capsys.readouterr().err
    assert one.read_bytes() == before


def test_answers_from_many_at_once_stay_whole(tmp_path):
    path = tmp_path / "answers.jsonl"

    def answering(name):
        for k in range(25):
            answers.append(path, rating(name, "a", 1 + k % 5, clip="x" * 500, trial=k))

    threads = [threading.Thread(target=answering, args=(f"l{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = answers.read(path)
    answered = {(row["listener"], row["trial"]) for row in rows}
    assert answered == {(f"l{n}", k) for n in range(8) for k in range(25)} and len(rows) == 200
