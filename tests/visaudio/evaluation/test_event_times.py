"""Onset F1 and E-L1: clicks that are known, and librosa's definition written out."""

import numpy as np
import pytest

from visaudio.evaluation import measures, onsets
from visaudio.evaluation.event_times import RATE as ENVELOPE_RATE
from visaudio.evaluation.event_times import EventTimes, envelope
from visaudio.evaluation.measures import ClipSet, Scene, Settings, Sound

RATE = 44100
SCENE = Scene("a", 3.0)


def struck(times_s, gains=(1.0, 1.0), seconds=3.0, seed=0):
    """Bursts of noise that die away, each ear with its gain."""
    time = np.arange(round(seconds * RATE)) / RATE
    noise = np.random.default_rng(seed).standard_normal(len(time))
    decay = sum((np.where(time >= t, np.exp(-(time - t) / 0.08), 0) for t in times_s), np.zeros_like(time))
    audio = 0.1 * decay * noise * np.array(gains)[:, None]
    return Sound(audio.astype(np.float32), RATE)


def rows(measure, pairs):
    found = [
        measure.compare(measure.hear(ours, SCENE), measure.hear(theirs, SCENE), SCENE)
        for ours, theirs in pairs
    ]
    return {name: np.array([row[name] for row in found]) for name in found[0]}


def test_registered_under_its_name():
    measure = measures.make("onsets", Settings())
    assert isinstance(measure, EventTimes) and measure.parallel and measure.needs == {"reference"}


def test_onsets_within_50_ms_are_hits_and_pooled():
    measure = EventTimes()
    reference = struck([0.5, 1.2, 2.0])
    found = rows(
        measure,
        [
            (struck([0.53, 1.2, 2.0], seed=1), reference),  # all
            (struck([0.5, 1.3, 2.5], seed=1), reference),  # one of three
            (struck([]), reference),  # silence
        ],
    )
    assert found["onset_f1"] == pytest.approx([1, 1 / 3, 0])
    assert found["mix_hits"].tolist() == [3, 1, 0] and found["mix_generated"].tolist() == [3, 3, 0]
    clips = ClipSet(("a", "b", "c"), found)
    every = measure.summarise(clips, np.arange(3))
    assert every["onset_f1"] == pytest.approx(2 * 4 / (6 + 9))  # not the mean of the clips' own, 0.444
    assert measure.summarise(clips, np.array([0, 0, 1]))["onset_f1"] == pytest.approx(2 * 7 / (9 + 9))


def test_ears_are_matched_each_with_its_own():
    """Left sounds at 0.5, right at 1.5; swapped ears keep the mix and lose both ears."""
    left, right = struck([0.5], (1, 0)), struck([1.5], (0, 1))
    reference = Sound(left.audio + right.audio, RATE)
    swapped = Sound(reference.audio[::-1].copy(), RATE)
    found = rows(EventTimes(), [(reference, reference), (swapped, reference)])
    assert found["onset_f1"].tolist() == [1, 1] and found["onset_f1_ears"].tolist() == [1, 0]
    assert found["envelope_l1"] == pytest.approx([0, 0], abs=1e-6)
    assert found["envelope_l1_ears"][0] == 0 and found["envelope_l1_ears"][1] > 0.001


def test_envelope_is_the_root_mean_square_of_frames_that_are_cut_out():
    """librosa.feature.rms(frame_length=512, hop_length=128): centred, zeros beyond the ends."""
    rng = np.random.default_rng(0)
    for samples in (127, 128, 5000, 22051):
        audio = rng.standard_normal((2, samples)).astype(np.float32)
        padded = np.pad(audio.astype(np.float64), ((0, 0), (256, 256)))
        count = 1 + samples // 128
        cut = np.stack([padded[:, i * 128 : i * 128 + 512] for i in range(count)], axis=1)
        expected = np.sqrt((cut**2).mean(axis=-1))
        found = envelope(audio)
        assert found.shape == (2, count) and found.dtype == np.float32
        assert np.allclose(found, expected, atol=1e-6)


def test_e_l1_of_steady_tones_is_the_difference_of_their_levels():
    time = np.arange(3 * ENVELOPE_RATE) / ENVELOPE_RATE
    tone = np.sin(2 * np.pi * 1000 * time)
    sounds = [Sound(np.stack([gain * tone] * 2).astype(np.float32), ENVELOPE_RATE) for gain in (0.1, 0.4)]
    found = rows(EventTimes(), [(sounds[0], sounds[1])])
    expected = 0.3 / np.sqrt(2)
    assert found["envelope_l1"][0] == pytest.approx(expected, rel=0.01)
    assert found["envelope_l1_ears"][0] == pytest.approx(expected, rel=0.01)
    # the same shape at another level: nothing is left of it once levels are matched
    assert found["envelope_l1_matched"][0] == pytest.approx(0, abs=1e-6)


def test_one_gain_for_both_ears_matches_levels():
    """An ear that is too loud cannot be hidden by a gain of its own."""
    reference = struck([0.5, 1.5], (1, 1))
    lopsided = struck([0.5, 1.5], (2, 0))
    found = rows(EventTimes(), [(lopsided, reference)])
    gain = np.sqrt(2 / 4)  # powers 1 + 1 against 4 + 0; the mix of both has gain 1
    expected = (1 - gain) * envelope(reference.at(ENVELOPE_RATE).mean(0)).mean()
    assert found["envelope_l1_matched"][0] == pytest.approx(expected, rel=1e-3)


def test_silence_on_either_side():
    noise, silence = struck([0.5]), Sound(np.zeros((2, 3 * RATE), np.float32), RATE)
    found = rows(EventTimes(), [(silence, noise), (noise, silence), (silence, silence)])
    level = float(envelope(noise.at(ENVELOPE_RATE).mean(0)).mean())
    assert found["envelope_l1"] == pytest.approx([level, level, 0])
    assert found["onset_f1"][:2].tolist() == [0, 0] and np.isnan(found["onset_f1"][2])
    assert found["envelope_l1_matched"][0] == pytest.approx(level)
    assert np.isnan(found["envelope_l1_matched"][1:]).all()
    nothing = {name: np.full(1, np.nan) for name in found}
    assert all(
        np.isnan(v) for v in EventTimes().summarise(ClipSet(("a",), nothing), np.zeros(1, int)).values()
    )


def test_without_an_onset_on_either_side_nothing_is_said():
    """A tone that fades in has no onset; silence against it must not be right."""
    time = np.arange(3 * RATE) / RATE
    steady = np.sin(2 * np.pi * 500 * time) * np.minimum(1, np.minimum(time, 3 - time))
    steady = Sound(np.stack([0.2 * steady] * 2).astype(np.float32), RATE)
    silence, struck_once = Sound(np.zeros((2, 3 * RATE), np.float32), RATE), struck([0.5])
    measure = EventTimes()
    found = rows(measure, [(silence, steady), (steady, steady), (struck_once, struck_once)])
    assert found["mix_reference"].tolist() == [0, 0, 1] and found["mix_generated"].tolist() == [0, 0, 1]
    clips, figures = ClipSet(("a", "b", "c"), found), ("onset_f1", "onset_f1_ears")
    for figure in figures:
        assert np.isnan(found[figure][:2]).all() and found[figure][2] == 1
        assert measure.summarise(clips, np.arange(3))[figure] == 1
        assert np.isnan(measure.summarise(clips, np.array([0, 1, 1]))[figure])
    assert onsets.f1(0, 0, 0) == 1 and measure.key == "onsets-2"  # the first table's own stays as published


def test_rates_and_lengths_may_differ():
    reference = struck([0.5, 1.2, 2.0])
    other = Sound(reference.at(48000)[:, : round(2.99 * 48000)], 48000)
    found = rows(EventTimes(), [(other, reference)])
    assert found["onset_f1"].tolist() == [1.0]
    assert found["envelope_l1"][0] < 1e-3 * onsets.TOLERANCE_S + 2e-4
