"""The measure gives what the benchmark's own functions give for the same sounds."""

from dataclasses import replace

import numpy as np
import pytest
from sound_files import write

from bi_audio_dataset.schema import UserError
from visaudio.data.dataset import open_dataset, read_clip
from visaudio.evaluation import classifier as classifiers
from visaudio.evaluation import measures
from visaudio.evaluation import synth_benchmark as benchmark
from visaudio.evaluation.measures import ClipSet, Scene, Settings, Sound
from visaudio.evaluation.runner import Options, evaluate

RATE = 44100


def moved(source, **changes):
    return replace(source, **{name: np.asarray(value, np.float32) for name, value in changes.items()})


@pytest.fixture(scope="module")
def scenes(fake_biaudio):
    """Rows of the fake set: as it is, of two sources, and one that moves."""
    clips = [read_clip(row, sample_rate=RATE) for row in open_dataset(fake_biaudio)]
    sweep = np.linspace(40, -40, len(clips[0].sources[0].azimuth_deg))
    clips[1] = replace(clips[1], sources=(clips[1].sources[0], clips[0].sources[0]))
    clips[3] = replace(clips[3], sources=(moved(clips[3].sources[0], azimuth_deg=sweep, lateral_deg=sweep),))
    return clips


def sounds_of(clip, number: int) -> np.ndarray:
    """Something else than the truth: other level, delay and ILD, and noise."""
    rng = np.random.default_rng(number)
    gain = np.array([[0.6], [0.6 * 10 ** (-2 * number / 20)]])
    return np.float32(
        gain * np.roll(clip.audio, 300 * number, axis=1) + 1e-4 * rng.standard_normal(clip.audio.shape)
    )


def row_of(measure, clip, audio):
    of = Scene(clip.id, clip.duration_s, truth=replace(clip, audio=None))
    heard = [measure.hear(Sound(sound, RATE), of) for sound in (audio, clip.audio)]
    return measure.compare(*heard, of)


@pytest.fixture(scope="module")
def measured(scenes):
    measure = measures.make("truth", Settings())
    rows = [row_of(measure, clip, sounds_of(clip, k)) for k, clip in enumerate(scenes)]
    return measure, ClipSet(tuple(c.id for c in scenes), {n: np.array([r[n] for r in rows]) for n in rows[0]})


def by_hand(scenes, index) -> dict[str, float]:
    classify = classifiers.load(classifiers.PACKAGED).classify
    scores = []
    for k in index:
        clip, both = scenes[k], (sounds_of(scenes[k], k), scenes[k].audio)
        heard, truth = (benchmark.hear(audio, RATE, classify, clip.duration_s) for audio in both)
        scores.append(benchmark.score(heard, truth, clip))
    return {name: figure.value for name, figure in benchmark.summarise(scores).items()}


@pytest.mark.parametrize("index", [[0, 1, 2, 3], [0, 0, 3], [1], [3]])
def test_every_figure_is_the_benchmark_s(scenes, measured, index):
    """For all clips, some of them again, and for one of several sources alone."""
    measure, clips = measured
    found, expected = measure.summarise(clips, np.array(index)), by_hand(scenes, index)
    assert {spec.name for spec in measure.figures} == {f"truth_{name}" for name in expected} == set(found)
    for name, value in expected.items():
        assert found[f"truth_{name}"] == pytest.approx(value, nan_ok=True, rel=1e-12), name
    assert np.isfinite(found["truth_ild_error_db"]) and np.isnan(found["truth_r_moving"]) == (3 not in index)


def test_a_clip_s_own_row_is_its_own_summary(measured):
    measure, clips = measured
    for k in range(4):
        alone = measure.summarise(clips, np.array([k]))
        for name, value in alone.items():
            assert clips.rows[name][k] == pytest.approx(value, nan_ok=True, rel=1e-12), name
    assert np.isnan(clips.rows["truth_sound_class"][1])  # of two sources it is not asked


def test_silence_is_wrong(scenes):
    measure, clip = measures.make("truth", Settings()), scenes[0]
    row = row_of(measure, clip, 0 * clip.audio)
    assert row["truth_side"] == 0 and row["truth_sound_class"] == 0
    assert row["truth_onset_f1"] == 0
    right = row_of(measure, clip, clip.audio)
    assert right["truth_side"] == 1 and right["truth_ild_error_db"] == 0


def test_a_short_sound_is_silent_for_the_rest(scenes):
    measure, clip = measures.make("truth", Settings()), scenes[0]
    cut, full = row_of(measure, clip, clip.audio[:, :RATE]), row_of(measure, clip, clip.audio)
    assert cut["truth_frames_sum"] == full["truth_frames_sum"]
    assert 0 < cut["truth_side"] < 1  # the second burst is missing
    assert cut["truth_side"] + cut["truth_side_silent"] == pytest.approx(1, abs=0.1)
    assert cut["truth_ild_error_db"] > 0.1 > full["truth_ild_error_db"]


def test_a_second_of_silence_is_no_better_than_silence(scenes, fake_biaudio, tmp_path):
    """The reference is heard to its end, whatever a system left out: neither errors nor side gain by it."""
    for system, length in (("whole", 2 * RATE), ("short", RATE // 2)):
        for clip in scenes:
            write(tmp_path / system / f"{clip.id}.wav", np.zeros((length, 2), np.float32), RATE)
    options = Options(measures=("truth",), split="train", resamples=10, progress=False)
    systems = {name: tmp_path / name for name in ("whole", "short")}
    results = evaluate(systems, str(fake_biaudio), tmp_path / "out", options)
    whole, short = (results.figures[name] for name in ("whole", "short"))
    for name in ("truth_side", "truth_r", "truth_ild_error_db", "truth_itd_gcc_us", "truth_itd_phase_us"):
        assert short[name].value == pytest.approx(whole[name].value), name
    assert whole["truth_ild_error_db"].value > 0.5 and whole["truth_side"].value == 0


def test_the_classifier_can_be_another(tmp_path):
    classifiers.save(classifiers.SoundClassifier(["bell", "drum"]), tmp_path / "own.safetensors")
    own = measures.make("truth", Settings(weights={"sound_classifier": str(tmp_path / "own.safetensors")}))
    assert own.classifier.classes == ("bell", "drum")
    assert own.key != measures.make("truth", Settings()).key
    with pytest.raises(UserError, match="sound classifier"):
        measures.make("truth", Settings(weights={"sound_classifier": str(tmp_path / "none.safetensors")}))
