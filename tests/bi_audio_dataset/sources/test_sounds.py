import dataclasses

import numpy as np
import pytest
import soundfile

from bi_audio_dataset.schema import UserError
from bi_audio_dataset.sources.synthetic import sounds
from bi_audio_dataset.sources.synthetic.folder_sounds import load_folder_sounds, sample_folder_sound

RATE = 44100
STRUCK = ("bell", "drum", "woodblock", "ball")


def draw(class_name: str, member: str, seed: int, held_out: bool) -> sounds.SoundSpec:
    """A sound of one member: seeds are tried until it comes up."""
    rng = np.random.default_rng(seed)
    while (spec := sounds.sample_sound(class_name, rng, held_out)).member != member:
        pass
    return spec


def all_members():
    return [(name, member) for name, c in sounds.CLASSES.items() for member in c.members]


def log_mel_features(signal: np.ndarray) -> np.ndarray:
    """Mean and spread over the sounding frames of 32 log-mel bands, free of level. (64,)"""
    frames = np.lib.stride_tricks.sliding_window_view(signal, 2048)[::1024] * np.hanning(2048)
    power = np.abs(np.fft.rfft(frames)) ** 2
    mel = np.linspace(2595 * np.log10(1 + 50 / 700), 2595 * np.log10(1 + 16000 / 700), 33)
    edges = np.round(700 * (10 ** (mel / 2595) - 1) * 2048 / RATE).astype(int)
    bands = np.stack(
        [power[:, a : max(b, a + 1)].mean(1) for a, b in zip(edges[:-1], edges[1:], strict=True)], 1
    )
    active = bands.sum(1) > 1e-4 * bands.sum(1).max()
    levels = np.maximum(10 * np.log10(bands[active] + 1e-12), 10 * np.log10(bands.max()) - 60)
    levels -= levels.mean(1, keepdims=True)
    return np.concatenate([levels.mean(0), levels.std(0)])


@pytest.fixture(scope="module")
def features():
    """(class, member) -> features of training sounds (4, 64) and of held-out ones (3, 64), 2 s each."""
    table = {}
    for name, member in all_members():
        sides = []
        for held_out, count in ((False, 4), (True, 3)):
            rows = []
            for seed in range(count):
                spec = draw(name, member, seed, held_out)
                events = sounds.plan_events(spec, np.random.default_rng(seed), 2.0)
                rows.append(log_mel_features(sounds.render_sound(spec, events, 2 * RATE, RATE)))
            sides.append(np.stack(rows))
        table[name, member] = sides
    return table


def test_classes_and_members_are_told_apart_by_nearest_centroid(features):
    keys = list(features)
    centroids = np.stack([features[key][0].mean(0) for key in keys])
    class_right, member_right, total = 0, 0, 0
    for key in keys:
        for row in features[key][1]:
            guess = keys[int(np.argmin(((centroids - row) ** 2).sum(1)))]
            class_right += guess[0] == key[0]
            member_right += guess == key
            total += 1
    assert class_right / total > 0.95
    assert member_right / total > 0.9


@pytest.mark.parametrize("class_name", sounds.CLASSES)
def test_loudness_is_alike_and_cues_have_energy(class_name):
    for seed in range(3):
        spec = sounds.sample_sound(class_name, np.random.default_rng(seed))
        events = sounds.plan_events(spec, np.random.default_rng(seed))
        signal = sounds.render_sound(spec, events, 8 * RATE, RATE)
        energy = signal**2
        cumulative = np.concatenate([[0], np.cumsum(energy, dtype=np.float64)])
        loudest = np.sqrt((cumulative[5512:] - cumulative[:-5512]).max() / 5512)
        assert np.abs(signal).max() <= 0.951
        assert 0.04 < loudest <= 0.1201  # 10 dB below only where the peak is the limit
        power = np.abs(np.fft.rfft(signal)) ** 2
        hertz = np.fft.rfftfreq(len(signal), 1 / RATE)
        assert power[(hertz > 200) & (hertz < 6000)].sum() > 0.05 * power.sum()
        assert power[(hertz > 1500) & (hertz < 6000)].sum() > 0.003 * power.sum()
        assert power[(hertz > 200) & (hertz < 1500)].sum() > 0.003 * power.sum()


@pytest.mark.parametrize(("class_name", "member"), all_members())
def test_onsets_are_where_the_plan_says(class_name, member):
    spec = draw(class_name, member, 3, held_out=False)
    onset_s = 0.5 + 1 / 3
    event = sounds.Event(onset_s, spec.decay_s if spec.kind != "hum" else 0.4, 1.0)
    signal = sounds.render_sound(spec, (event,), int(1.6 * RATE), RATE)
    onset = int(round(onset_s * RATE))
    level = np.abs(signal)
    assert not level[:onset].any()
    assert level[onset : onset + int(0.015 * RATE)].max() > 0.02 * level.max()
    if class_name in STRUCK:
        assert level[onset : onset + int(0.005 * RATE)].max() > 0.5 * level.max()
    if spec.kind == "hum":
        smooth = np.sqrt(np.convolve(signal**2, np.ones(1600) / 1600, "same"))
        full = smooth[onset + int(0.1 * RATE) : onset + int(0.25 * RATE)].mean()
        assert smooth[onset + int(0.008 * RATE)] < 0.45 * full < smooth[onset + int(0.07 * RATE)]


def test_held_out_parameters_never_occur_in_training():
    """In each range the two sides fall in disjoint cells, and the held-out side takes about a fifth."""
    for name, member in all_members():
        ranges = sounds.CLASSES[name].members[member]
        for parameter in ("pitch_hz", "decay_s", "rate"):
            low, high = getattr(ranges, parameter)
            for held_out in (False, True):
                specs = [draw(name, member, seed, held_out) for seed in range(12)]
                units = [np.log(getattr(s, parameter) / low) / np.log(high / low) for s in specs]
                cells = np.floor(np.array(units) * 20).astype(int)
                assert (cells >= 0).all() and (cells <= 19).all()
                assert ((cells % 5 == 2) == held_out).all()
    rng = np.random.default_rng(0)
    train = [sounds.sample_sound("bell", rng).brightness for _ in range(400)]
    held = [sounds.sample_sound("bell", rng, held_out=True).brightness for _ in range(100)]
    assert np.abs(np.subtract.outer(train, held)).min() > 0.0004
    assert min(held) < 0.15 and max(held) > 0.85  # spread over the whole range


@pytest.mark.parametrize("class_name", sounds.CLASSES)
def test_plans_keep_their_gaps(class_name):
    rng = np.random.default_rng(1)
    min_gap = sounds.CLASSES[class_name].min_gap_s
    first, counts = [], []
    for _ in range(60):
        spec = sounds.sample_sound(class_name, rng)
        events = sounds.plan_events(spec, rng)
        onsets = np.array([event.onset_s for event in events])
        ends = onsets + [event.duration_s for event in events]
        first.append(onsets[0])
        counts.append(len(events))
        assert onsets[0] >= 0.15 and ends[-1] <= 8.0 + 1e-9
        assert all(0.5 <= event.strength <= 1.0 for event in events)
        if spec.kind == "hum":
            assert 1 <= len(events) <= 3
            assert 0.4 - 1e-6 <= sum(event.duration_s for event in events) / 8 <= 0.85 + 1e-6
            assert (onsets[1:] - ends[:-1] > 0.15).all()
        else:
            assert (np.diff(onsets) >= min_gap - 1e-9).all()
        if spec.kind == "bounce":
            gaps = np.diff(onsets)
            within = gaps < 1.0
            pairs = within[1:] & within[:-1]
            assert pairs.any() and (gaps[1:][pairs] < 0.85 * gaps[:-1][pairs]).all()
    assert 0.1 < np.mean(np.array(first) > 1.0) < 0.9  # silence at the start, sometimes
    if class_name in ("bell", "drum", "woodblock"):
        assert 0.3 < np.mean(counts) / 8 < 2.0


def test_short_and_long_durations_are_planned():
    rng = np.random.default_rng(2)
    for name in sounds.CLASSES:
        spec = sounds.sample_sound(name, rng)
        for duration in (0.3, 1.0, 30.0):
            events = sounds.plan_events(spec, rng, duration)
            assert events[0].onset_s >= 0.15
            assert max(event.onset_s for event in events) < duration
            assert events[-1].onset_s > duration - 20
    with pytest.raises(ValueError, match="duration_s is 0.1"):
        sounds.plan_events(spec, rng, 0.1)


def test_rendering_is_deterministic_and_follows_the_seed():
    for name in sounds.CLASSES:
        spec = sounds.sample_sound(name, np.random.default_rng(5))
        assert spec == sounds.sample_sound(name, np.random.default_rng(5))
        events = sounds.plan_events(spec, np.random.default_rng(6), 2.0)
        assert events == sounds.plan_events(spec, np.random.default_rng(6), 2.0)
        first = sounds.render_sound(spec, events, 2 * RATE, RATE)
        assert np.array_equal(first, sounds.render_sound(spec, events, 2 * RATE, RATE))
        other = dataclasses.replace(spec, seed=spec.seed + 1)
        assert not np.array_equal(first, sounds.render_sound(other, events, 2 * RATE, RATE))


def test_unknown_class_names_the_known():
    with pytest.raises(ValueError, match="'gong'; known: bell, drum"):
        sounds.sample_sound("gong", np.random.default_rng(0))


def test_envelope_of_a_step_and_of_silence():
    signal = np.concatenate([np.zeros(RATE), np.full(RATE, 0.01), np.full(RATE, 0.1)])
    envelope = sounds.envelope_db(signal, RATE, 25.0)
    assert len(envelope) == 75
    np.testing.assert_allclose(envelope[[0, 24, 25, 49, 50, 74]], [-80, -80, -20, -20, 0, 0], atol=1e-4)
    assert (sounds.envelope_db(np.zeros(RATE), RATE, 25.0) == -80).all()
    assert len(sounds.envelope_db(np.zeros(8 * RATE), RATE, 25.0)) == 200


# --- sounds from a folder ---------------------------------------------------------------------------------


def write(folder, name, samples, sample_rate=48000):
    soundfile.write(folder / name, samples, sample_rate)


@pytest.fixture
def sound_folder(tmp_path):
    time = np.arange(48000) / 48000
    ping = 0.5 * np.sin(2 * np.pi * 1000 * time) * np.exp(-20 * time)
    write(tmp_path, "tabla_na.wav", np.concatenate([np.zeros(12000), ping]))
    write(tmp_path, "tabla_ke.flac", np.stack([ping, ping], 1))
    write(tmp_path, "drone_low.wav", 0.3 * np.sin(2 * np.pi * 200 * time))
    (tmp_path / "README.md").write_text("not a sound")
    return tmp_path


def test_folder_sounds_are_trimmed_resampled_classed(sound_folder):
    loaded = {sound.member: sound for sound in load_folder_sounds(sound_folder)}
    assert {m: (s.class_name, s.kind) for m, s in loaded.items()} == {
        "tabla_na": ("tabla", "struck"),
        "tabla_ke": ("tabla", "struck"),
        "drone_low": ("drone", "hum"),
    }
    ping = loaded["tabla_na"].samples
    assert np.abs(ping).max() == pytest.approx(1.0)
    assert np.abs(ping[:20]).max() > 0.01  # cut at its onset
    peak_hz = np.argmax(np.abs(np.fft.rfft(ping, RATE)))
    assert abs(peak_hz - 1000) <= 2  # one bin is 1 Hz: it was resampled from 48 kHz
    assert sum(s.held_out for s in loaded.values()) == 1 and not loaded["drone_low"].held_out
    rng = np.random.default_rng(0)
    sides = [
        {sample_folder_sound(list(loaded.values()), "tabla", rng, h).member for _ in range(9)} for h in (0, 1)
    ]
    assert sorted(map(len, sides)) == [1, 1] and not sides[0] & sides[1]


def test_folder_sounds_are_planned_and_rendered(sound_folder):
    for sound in load_folder_sounds(sound_folder):
        events = sounds.plan_events(sound, np.random.default_rng(0), 8.0)
        signal = sounds.render_sound(sound, events, 8 * RATE, RATE)
        onset = int(round(events[0].onset_s * RATE))
        assert not signal[:onset].any()
        assert np.abs(signal[onset : onset + 900]).max() > 0.1 * np.abs(signal).max()
        if sound.kind == "hum":  # a 1 s file lasts through a longer interval
            last = events[-1]
            middle = int((last.onset_s + 0.9 * last.duration_s) * RATE)
            assert last.duration_s > 1.0
            assert np.abs(signal[middle - 2000 : middle]).max() > 0.3 * np.abs(signal).max()


def test_bad_folders_are_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        load_folder_sounds(tmp_path / "absent")
    with pytest.raises(UserError, match="no audio file"):
        load_folder_sounds(tmp_path)
    (tmp_path / "bad_file.wav").write_text("text")
    with pytest.raises(UserError, match="bad_file.wav: cannot be read as audio") as caught:
        load_folder_sounds(tmp_path)
    assert "\n" not in str(caught.value)
    write(tmp_path, "bad_file.wav", np.zeros(1000))
    with pytest.raises(UserError, match="holds no sound"):
        load_folder_sounds(tmp_path)


def test_the_shared_cc0_set_renders(shared_dir):
    loaded = load_folder_sounds(shared_dir / "media" / "sfx_cc0")
    kinds = {sound.member: sound.kind for sound in loaded}
    assert len(loaded) == 190
    assert kinds["perc_bell"] == kinds["tabla_na"] == kinds["drum_cowbell"] == "struck"
    assert kinds["loop_drone_g_97"] == kinds["vinyl_hiss"] == "hum"
    for sound in loaded[::25]:
        events = sounds.plan_events(sound, np.random.default_rng(0), 3.0)
        signal = sounds.render_sound(sound, events, 3 * RATE, RATE)
        assert 0.02 < np.abs(signal).max() <= 0.951
