"""Interaural embeddings by hand, and their distance between sets of clips."""

import csv
import json

import numpy as np
import pytest
from sound_files import write

from visaudio.evaluation import fsad, measures, writing
from visaudio.evaluation.frechet import frechet_distance
from visaudio.evaluation.intervals import draws, interval, resample
from visaudio.evaluation.measures import ClipSet, Scene, Settings, Sound
from visaudio.evaluation.problems import line
from visaudio.evaluation.runner import Options, evaluate

RATE = fsad.RATE_HZ
ILD, RE, IM, IC = slice(0, 8), slice(8, 12), slice(12, 16), slice(16, 24)


def noise(seconds=1.0, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))


def test_a_gain_is_the_ild_of_every_band():
    (found,) = fsad.embed(np.stack([5 * noise(), 10 ** (-12 / 20) * 5 * noise()]))
    np.testing.assert_allclose(found[ILD], 1.2, atol=0.01)
    np.testing.assert_allclose(found[RE], 1, atol=0.01)
    np.testing.assert_allclose(found[IM], 0, atol=1e-9)
    np.testing.assert_allclose(found[IC], 1, atol=0.01)


def test_a_delay_turns_the_phase_of_the_low_bands():
    samples = 6  # 0.27 ms, left first
    long = noise(1.1)
    (found,) = fsad.embed(np.stack([long[samples : samples + RATE], long[:RATE]]))
    low, high = fsad.BAND_EDGES_HZ[:4], fsad.BAND_EDGES_HZ[1:5]
    # mean of exp(-j 2 pi f itd) over the band's own bins
    bins = np.fft.rfftfreq(fsad.WINDOW, 1 / RATE)
    for band, (a, b) in enumerate(zip(low, high, strict=True)):
        inside = bins[(bins >= a) & (bins < b)]
        expected = np.exp(-2j * np.pi * inside * samples / RATE).mean()
        assert found[RE][band] == pytest.approx(expected.real, abs=0.05)
        assert found[IM][band] == pytest.approx(expected.imag, abs=0.05)
    np.testing.assert_allclose(found[ILD], 0, atol=0.02)


def test_independent_ears_are_incoherent_and_silence_is_the_middle():
    (apart,) = fsad.embed(np.stack([noise(seed=1), noise(seed=2)]))
    assert (apart[IC] < 0.25).all()
    assert not fsad.embed(np.zeros((2, RATE))).any()


def test_a_second_counts_from_half_of_it():
    counts = [len(fsad.embed(np.zeros((2, round(s * RATE))))) for s in (0.01, 0.2, 1.4, 1.6, 8.0)]
    assert counts == [0, 1, 1, 2, 8]


def clips(seconds=8.0, count=8, gains=None):
    """Sounds of white noise, each with a gain of its own between the ears."""
    gains = np.linspace(-12, 12, count) if gains is None else gains
    found = []
    for seed, gain in enumerate(gains):
        ears = np.stack([noise(seconds, seed), noise(seconds, seed) + 0.3 * noise(seconds, 100 + seed)])
        found.append(ears * 10 ** (np.array([[gain], [-gain]]) / 40))
    return found


def clip_set(generated, reference):
    measure = measures.make("fsad", Settings())
    of = Scene("a", 8.0)
    hear = lambda sounds: [measure.hear(Sound(np.float32(s), RATE), of) for s in sounds]  # noqa: E731
    return measure, ClipSet(tuple(map(str, range(len(generated)))), {}, hear(generated), hear(reference))


def test_the_distance_of_sets():
    truth = clips()
    every = np.arange(8)
    measure, same = clip_set(truth, truth)
    assert measure.summarise(same, every)["fsad"] == pytest.approx(0, abs=1e-8)
    _, mono = clip_set([np.repeat(s.mean(axis=0, keepdims=True), 2, axis=0) for s in truth], truth)
    _, less = clip_set(clips(gains=np.linspace(-9, 9, 8)), truth)
    # ILD of 8 bands: standard deviation 8 dB against 6 or 0, in units of 10 dB, if nothing else differed
    spread = np.sqrt(np.var(np.linspace(-1.2, 1.2, 8)) * 64 / 63)  # eight embeddings a clip, n - 1
    assert measure.summarise(less, every)["fsad"] == pytest.approx(8 * (0.25 * spread) ** 2, rel=0.05)
    assert measure.summarise(mono, every)["fsad"] > 8 * spread**2 > measure.summarise(less, every)["fsad"]


def test_a_resample_is_the_distance_of_the_repeated_clips():
    ours, theirs = clips(gains=np.linspace(-6, 12, 8)), clips()
    measure, both = clip_set(ours, theirs)
    index = np.array([1, 1, 5, 7, 0, 2, 2, 2])
    rows = [np.concatenate([fsad.embed(np.float32(s[k])) for k in index]) for s in (ours, theirs)]
    expected = frechet_distance(*(m for r in rows for m in (r.mean(axis=0), np.cov(r.T))))
    assert measure.summarise(both, index)["fsad"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("count", [8, 24])
def test_its_interval_holds_it(count):
    """Clips drawn repeatedly make both Gaussians narrower than they are, and further apart."""
    gains = np.random.default_rng(3).uniform(-12, 12, count)
    measure, both = clip_set(clips(6.0, gains=gains[::-1]), clips(6.0, gains=gains))
    found = resample(measure, both, 200)
    drawn = [measure.summarise(both, index)["fsad"] for index in draws(count, 200, 0)]
    value, low, high = found.values["fsad"], *interval(found.resampled["fsad"])
    assert low < value < high
    assert high - low == pytest.approx(np.subtract(*np.percentile(drawn, [97.5, 2.5])))
    assert np.mean(drawn) > value


@pytest.mark.parametrize("count", [1, 2, 3])
def test_too_few_clips_have_no_distance_and_a_reason(count):
    truth = clips(count=count, seconds=20.0)
    measure, few = clip_set(truth, truth)
    assert np.isnan(measure.summarise(few, np.arange(count))["fsad"])
    (why,) = measure.remarks(few)
    assert why.startswith(f"no figure: {count} clips and {8 * count} seconds, needs at least 4 clips and 48 ")


def test_too_few_seconds_have_no_distance_and_a_reason():
    short = clips(seconds=2.0)
    measure, seconds = clip_set(short, short)  # 16 embeddings
    assert np.isnan(measure.summarise(seconds, np.arange(8))["fsad"])
    assert measure.remarks(seconds)[0].startswith("no figure: 8 clips and 16 seconds")
    measure, enough = clip_set(clips(), clips())
    assert measure.remarks(enough) == () and np.isfinite(measure.summarise(enough, np.arange(8))["fsad"])


def test_the_reason_is_told(tmp_path, monkeypatch):
    for number in range(3):
        for side in ("gen", "ref"):
            write(tmp_path / side / f"c{number}.wav")
    monkeypatch.setattr(measures, "REGISTRY", {"fsad": measures.REGISTRY["fsad"]})
    results = evaluate({"s": tmp_path / "gen"}, tmp_path / "ref", tmp_path / "out", Options(progress=False))
    (problem,) = results.problems
    assert (problem.kind, problem.note) == ("remark", "fsad") and "no figure: 3 clips" in line(problem)
    # no clip is behind a value that is not there, in whichever file
    assert results.figures["s"]["fsad"].clips == 0
    writing.write(results, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "results.json").read_text())["figures"]["s"]["fsad"] == [
        None, None, None, 0,
    ]  # fmt: skip
    (row,) = csv.DictReader((tmp_path / "out" / "table.csv").open())
    assert (row["figure"], row["value"], row["clips"], row["of"]) == ("fsad", "", "0", "3")
    both = {name: tmp_path / "gen" for name in "ab"}
    (compared,) = evaluate(both, tmp_path / "ref", tmp_path / "out", Options(progress=False)).comparisons
    assert np.isnan(compared.difference.value) and compared.difference.clips == 0
