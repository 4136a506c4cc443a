"""The measure gives what the benchmark's own functions give for the same sounds."""

from dataclasses import replace

import numpy as np
import pytest

from bi_audio_dataset.schema import UserError
from visaudio.data.dataset import open_dataset, read_clip
from visaudio.evaluation import classifier as classifiers
from visaudio.evaluation import measures
from visaudio.evaluation import synth_benchmark as benchmark
from visaudio.evaluation.measures import ClipSet, Scene, Settings, Sound

RATE = 44100


def moved(source, **changes):
    return replace(source, **{name: np.asarray(value, np.float32) for name, value in changes.items()})


@pytest.fixture(scope="module")
def scenes(fake_biaudio):
    """Rows of the fake set, one as it is, one of two sources, one that leaves the view, one that moves."""
    clips = [read_clip(row, sample_rate=RATE) for row in open_dataset(fake_biaudio)]
    frames = len(clips[0].sources[0].azimuth_deg)
    leaving = replace(clips[2].sources[0], visible=np.arange(frames) < 16)
    sweep = np.linspace(40, -40, frames)
    clips[1] = replace(clips[1], sources=(clips[1].sources[0], clips[0].sources[0]))
    clips[2] = replace(clips[2], sources=(leaving,))
    # seen to move while the camera turns the other way: still in the world
    camera = np.stack([-sweep, 0 * sweep, 0 * sweep])
    turned = moved(clips[3].sources[0], azimuth_deg=sweep, lateral_deg=sweep)
    clips[3] = replace(clips[3], sources=(turned,), camera_deg=camera)
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


def by_hand(scenes, group: str) -> dict[str, float]:
    classify = classifiers.load(classifiers.PACKAGED).classify
    scores = []
    for k, clip in enumerate(scenes):
        if group in benchmark.groups_of(clip, clip.camera_deg):
            heard, truth = (
                benchmark.hear(audio, RATE, classify, clip.duration_s)
                for audio in (sounds_of(clip, k), clip.audio)
            )
            scores.append(benchmark.score(heard, truth, clip))
    return {name: figure.value for name, figure in benchmark.summarise(scores).items()}


@pytest.mark.parametrize("group", ["gated", "camera_only", "leaves_view", "several"])
def test_every_figure_of_every_group_is_the_benchmark_s(scenes, measured, group):
    measure, clips = measured
    found, expected = measure.summarise(clips, np.arange(4)), by_hand(scenes, group)
    assert expected
    for name, value in expected.items():
        if f"truth_{group}_{name}" in found:
            assert found[f"truth_{group}_{name}"] == pytest.approx(value, nan_ok=True, rel=1e-12), name
    assert np.isfinite(found[f"truth_{group}_ild_error_db"])


def test_groups_are_what_the_rows_say(measured):
    _, clips = measured
    member = {group: clips.rows[f"truth_in_{group}"].tolist() for group in benchmark.GROUPS}
    assert member["gated"] == [1, 0, 0, 1] and member["camera_only"] == [0, 0, 0, 1]
    assert member["several"] == [0, 1, 0, 0] and member["leaves_view"] == [0, 0, 1, 0]
    assert np.isnan(clips.rows["truth_several_side"][0]) and np.isfinite(clips.rows["truth_gated_side"][0])


def test_a_resample_repeats_clips(scenes, measured):
    measure, clips = measured
    twice = measure.summarise(clips, np.array([0, 0, 3]))
    sums = np.array([[clips.rows[f"truth_sum_{name}"][k] for name in benchmark.SUMS] for k in (0, 0, 3)])
    pooled = benchmark.pooled(sums.sum(axis=0))
    assert twice["truth_gated_r"] == pytest.approx(float(pooled["r"]), rel=1e-12)
    assert np.isnan(twice["truth_several_side"])


def test_silence_is_wrong(scenes):
    measure, clip = measures.make("truth", Settings()), scenes[0]
    row = row_of(measure, clip, 0 * clip.audio)
    assert row["truth_gated_side"] == 0 and row["truth_gated_sound_class"] == 0
    assert row["truth_gated_onset_f1"] == 0
    right = row_of(measure, clip, clip.audio)
    assert right["truth_gated_side"] == 1 and right["truth_gated_ild_error_db"] == 0


def test_a_short_sound_is_silent_for_the_rest(scenes):
    measure, clip = measures.make("truth", Settings()), scenes[0]
    half = clip.audio[:, :RATE]
    of = Scene(clip.id, 1.0, truth=replace(clip, audio=None))
    cut = measure.compare(*(measure.hear(Sound(half, RATE), of) for _ in range(2)), of)
    full = row_of(measure, clip, clip.audio)
    assert cut["truth_sum_frames"] == full["truth_sum_frames"]
    assert 0 < cut["truth_gated_side"] < 1  # the second burst is missing


def test_the_classifier_can_be_another(tmp_path):
    classifiers.save(classifiers.SoundClassifier(["bell", "drum"]), tmp_path / "own.safetensors")
    own = measures.make("truth", Settings(weights={"sound_classifier": str(tmp_path / "own.safetensors")}))
    assert own.classifier.classes == ("bell", "drum")
    assert own.key != measures.make("truth", Settings()).key
    with pytest.raises(UserError, match="sound classifier"):
        measures.make("truth", Settings(weights={"sound_classifier": str(tmp_path / "none.safetensors")}))


def test_names_belong_to_no_other_measure():
    names = [spec.name for spec in measures.make("truth", Settings()).figures]
    assert len(names) == len(set(names)) == 38
    assert all(name.startswith("truth_") for name in names)


def test_a_row_s_camera_is_read(fake_biaudio):
    clip = read_clip(open_dataset(fake_biaudio)[0])
    assert clip.camera_deg.shape == (3, len(clip.sources[0].azimuth_deg)) and not clip.camera_deg.any()
