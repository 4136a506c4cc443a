import dataclasses
import errno
import hashlib
import io
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fake_source import FakeSource, scene, still_camera, tiny_config

from bi_audio_dataset import ambisonics, manifest, media, trajectory
from bi_audio_dataset import build as build_module
from bi_audio_dataset.build import build
from bi_audio_dataset.build_config import AIM_FROM_HZ
from bi_audio_dataset.camera_plan import choose_hfov, clip_rng, plan_camera
from bi_audio_dataset.clip import (
    ClipMaker,
    lr_difference,
    normalise_level,
    true_peak,
    view_truth,
)
from bi_audio_dataset.executors import Local
from bi_audio_dataset.forecast import forecast
from bi_audio_dataset.schema import AUDIO_RATE_HZ, UserError
from bi_audio_dataset.shards import read_rows
from bi_audio_dataset.sphere import rotation_matrix


def digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("built") / "set"
    build(FakeSource(), output, tiny_config(), workers=1, progress=False)
    return output


def test_two_workers_give_the_same_bytes(built, tmp_path):
    build(FakeSource(), tmp_path / "two", tiny_config(), workers=2, progress=False)
    assert digests(tmp_path / "two") == digests(built)


def test_layout_of_a_finished_set(built):
    assert sorted(digests(built)) == [
        "README.md",
        *(f"assets/{name}.png" for name in "classes confidence difference hfov lateral level".split()),
        "build.json",
        "data/test-00000-of-00001.parquet",
        "data/train-00000-of-00001.parquet",
        "manifest.jsonl",
    ]
    assert [r["id"] for r in read_rows(built / "data/train-00000-of-00001.parquet")] == ["fake-1", "fake-2"]
    text = "".join((built / name).read_text() for name in ("build.json", "README.md", "manifest.jsonl"))
    assert str(built.parent) not in text and os.uname().nodename not in text


def test_rows_say_where_most_energy_comes_from(built):
    said = {row["id"]: row for row in manifest.read(built / "manifest.jsonl") if row["kind"] == "clip"}
    rows = [row for shard in sorted((built / "data").iterdir()) for row in read_rows(shard)]
    assert [row["id"] for row in rows] == ["fake-0", "fake-1", "fake-2"]
    for row, azimuth_deg in zip(rows, FakeSource().azimuths_deg, strict=True):
        found = row["direction"]
        assert (found["azimuth_deg"], found["elevation_deg"]) == pytest.approx((azimuth_deg, 0.0), abs=0.5)
        assert (
            found["confidence"] == pytest.approx(row["filters"]["direction_confidence"])
            and 0.95 < found["confidence"] <= 1
        )
        assert found == pytest.approx({name: said[row["id"]]["direction"][name] for name in found})


def test_complete_set_is_left_alone(built):
    before = {p: p.stat().st_mtime_ns for p in built.rglob("*")}
    assert build(FakeSource(), built, tiny_config(), progress=False).already_complete
    assert {p: p.stat().st_mtime_ns for p in built.rglob("*")} == before


def test_another_build_into_the_same_folder_is_refused(built):
    with pytest.raises(UserError, match=r"holds another build \(config.seed is 0 there, 1 here\)"):
        build(FakeSource(), built, tiny_config(seed=1), progress=False)
    with pytest.raises(UserError, match="source.settings.azimuths_deg"):
        build(FakeSource((1.0, 2.0, 3.0)), built, tiny_config(), progress=False)


def test_foreign_folder_is_not_touched(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        build(FakeSource(), tmp_path, tiny_config(), progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_killed_build_goes_on_and_ends_with_the_same_bytes(built, tmp_path):
    output = tmp_path / "set"
    script = (
        "import time, fake_source; from pathlib import Path; from bi_audio_dataset.build import build\n"
        "class Slow(fake_source.FakeSource):\n"
        "    def fetch(self, i, w):\n"
        "        if i != 'fake-0': time.sleep(60)\n"
        "        return super().fetch(i, w)\n"
        f"build(Slow(), Path({str(output)!r}), fake_source.tiny_config(), workers=0, progress=False)\n"
    )
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    process = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": paths})
    part = output / ".work/parts/fake-0.parquet"
    deadline = time.monotonic() + 180
    while not part.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = part.stat().st_mtime_ns
    (part.parent / "fake-1.parquet.tmp").write_bytes(b"half a file")  # what a kill inside a write leaves

    seen = []

    class Spy(Local):
        def run(self, work, recording_ids):
            seen.extend(recording_ids)
            assert part.stat().st_mtime_ns == finished
            return super().run(work, recording_ids)

    build(FakeSource(), output, tiny_config(), executor=Spy(1), progress=False)
    assert seen == ["fake-1", "fake-2"]
    assert digests(output) == digests(built)


def test_second_builder_of_one_folder_is_refused(tmp_path):
    with (
        build_module._lock(tmp_path / "lock", tmp_path),
        pytest.raises(UserError, match="another process"),
        build_module._lock(tmp_path / "lock", tmp_path),
    ):
        pass


def test_unusable_recording_is_skipped_and_named(tmp_path, capsys):
    result = build(FakeSource(broken=(1,)), tmp_path / "set", tiny_config(), workers=0, progress=False)
    assert result.skipped == {"fake-1": "'fake-1' is broken"}
    assert result.figures.clips == {"test": 1, "train": 1}


def test_nothing_usable_is_an_error_and_leaves_no_data(tmp_path):
    with pytest.raises(UserError, match="'fake-0' is broken"):
        build(FakeSource((5.0,), broken=(0,)), tmp_path / "set", tiny_config(), workers=0, progress=False)
    assert not (tmp_path / "set/data").exists()


def test_full_disk_stops_the_build_and_skips_nothing(tmp_path):
    class Full(FakeSource):
        def fetch(self, recording_id, workdir):
            raise UserError("v.mp4: cannot be written, no space left") from OSError(errno.ENOSPC, "full")

    with pytest.raises(UserError, match="no space left"):
        build(Full(), tmp_path / "set", tiny_config(), workers=0, progress=False)
    assert list((tmp_path / "set/.work/parts").iterdir()) == []


def test_bad_hrir_file_is_refused_before_anything_is_made(tmp_path):
    (tmp_path / "bad.sofa").write_text("not HDF5")
    with pytest.raises(UserError, match="bad.sofa"):
        build(FakeSource(), tmp_path / "set", tiny_config(sofa=str(tmp_path / "bad.sofa")), progress=False)
    assert not (tmp_path / "set").exists()


def test_unknown_denoiser_is_refused_before_anything_is_made(tmp_path):
    for name, words in (("weiner", "'weiner' is unknown: give wiener"), ("nowhere:f", "cannot be loaded")):
        config = tiny_config(denoiser=name)
        with pytest.raises(UserError, match=words):
            build(FakeSource(), tmp_path / "set", config, progress=False)
        with pytest.raises(UserError, match=words):
            forecast(FakeSource(), config, tmp_path / "set")
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("clip_s", [0.0, -1.0, 1e-9, 0.49, 600.5, math.inf, math.nan])
def test_clips_of_no_use_are_refused(clip_s):
    with pytest.raises(UserError, match="clip_s is .*, expected"):
        tiny_config(clip_s=clip_s)
    assert tiny_config(clip_s=0.5).clip_s == 0.5 and tiny_config(clip_s=600.0).clip_s == 600.0


def test_repeated_ids_are_refused(tmp_path):
    class Twice(FakeSource):
        def recording_ids(self):
            return ["fake-0", "fake-0"]

    with pytest.raises(UserError, match="'fake-0' occurs more than once"):
        build(Twice(), tmp_path / "set", tiny_config(), workers=0, progress=False)


def test_ids_that_clips_could_share_are_refused_before_anything_is_made(tmp_path):
    class Numbered(FakeSource):
        def recording_ids(self):
            return ["take-0001", "take"]

    with pytest.raises(UserError, match="of recording 'take' could have the id of recording 'take-0001'"):
        build(Numbered(), tmp_path / "set", tiny_config(), workers=0, progress=False)
    assert not (tmp_path / "set").exists()


def test_load_dataset_gives_typed_rows_without_torchcodec(built, tmp_path):
    import datasets

    sets = datasets.load_dataset(str(built), cache_dir=str(tmp_path))
    assert {name: len(rows) for name, rows in sets.items()} == {"train": 2, "test": 1}
    rows = sets["train"]
    assert isinstance(rows.features["video"], datasets.Video)
    assert isinstance(rows.features["audio"], datasets.Audio)
    assert rows.features["audio"].sampling_rate == AUDIO_RATE_HZ
    row = rows[0]
    assert row["audio"]["bytes"][:4] == b"fLaC"
    assert row["truth"]["sources"][0]["class_name"] == "square"
    assert len(row["truth"]["sources"][0]["azimuth_deg"]) == len(row["camera"]["yaw_deg"]) == 20


def make_clip(tmp_path, azimuth_deg=30.0, **changes):
    config = tiny_config(trajectory=still_camera(), random_yaw_probability=0.0, **changes)
    source = FakeSource((azimuth_deg,), duration_s=changes.get("clip_s", 0.8))
    return ClipMaker(config)(source.fetch("fake-0", tmp_path), "fake", "train")[0]


def test_camera_turned_to_the_source_has_it_ahead_in_truth_picture_and_sound(tmp_path):
    record = make_clip(tmp_path, azimuth_deg=30.0, hfov_fixed_probability=1.0)
    np.testing.assert_allclose(record.camera.yaw_deg, 30.0, atol=0.5)
    view = record.truth.sources[0]
    np.testing.assert_allclose(view.azimuth_deg, 0.0, atol=0.5)
    np.testing.assert_allclose(view.lateral_deg, 0.0, atol=0.5)
    assert all(view.visible)
    assert record.caption == "Visible sound: a white square, Invisible sound: none"

    frame = frames_of(record)[10].astype(float).mean(axis=2)
    bright = np.argwhere(frame > 180)
    # 64 x 36 pixels: the centre lies between pixels 31 and 32, 17 and 18
    np.testing.assert_allclose(bright.mean(axis=0), [17.5, 31.5], atol=0.75)

    left, right = ears_of(record)
    assert abs(10 * math.log10(np.sum(left**2) / np.sum(right**2))) < 0.1
    assert record.filters.lr_difference < 1e-3


def test_camera_turned_away_has_the_source_at_the_left_in_truth_picture_and_sound(tmp_path, monkeypatch):
    # the camera is told to look 25 degrees to the right of the source
    monkeypatch.setattr(
        trajectory, "max_energy_direction", lambda foa, rate: (math.radians(30.0 - 25.0), 0.0, 1.0)
    )
    record = make_clip(tmp_path, azimuth_deg=30.0, hfov_fixed_probability=1.0)
    view = record.truth.sources[0]
    np.testing.assert_allclose(view.azimuth_deg, 25.0, atol=1e-3)
    frame = frames_of(record)[10].astype(float).mean(axis=2)
    column = np.argwhere(frame > 180)[:, 1].mean()
    expected = 31.5 - 32 * math.tan(math.radians(25.0))  # 90 degrees: half the width is tan 45 = 1
    assert abs(column - expected) < 1.0
    left, right = ears_of(record)
    assert 10 * math.log10(np.sum(left**2) / np.sum(right**2)) > 2


def frames_of(record) -> np.ndarray:
    times = np.arange(round(record.duration_s * record.fps)) / record.fps
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        file.write(record.video)
        file.flush()
        return media.read_frames(file.name, times)


def ears_of(record) -> np.ndarray:
    return soundfile.read(io.BytesIO(record.audio), always_2d=True)[0].T


def test_source_out_of_view_or_never_drawn_is_invisible(tmp_path):
    _, truth = scene(60.0, 0.8)
    ahead = rotation_matrix(np.zeros(20), 0.0, 0.0)
    config = tiny_config()
    assert not any(view_truth(truth, 0.0, ahead, 90.0, config).visible)
    assert all(view_truth(truth, 0.0, ahead, 130.0, config).visible)
    hidden = dataclasses.replace(truth, on_screen_kind="none")
    assert not any(view_truth(hidden, 0.0, ahead, 130.0, config).visible)


def test_roll_turns_a_source_on_the_left_below():
    # the head leans over to the right by 90 degrees: its chin points to where the left ear was
    _, truth = scene(40.0, 0.8)
    rolled = rotation_matrix(np.zeros(20), 0.0, np.full(20, math.pi / 2))
    view = view_truth(truth, 0.0, rolled, 90.0, tiny_config())
    np.testing.assert_allclose(view.elevation_deg, -40.0, atol=1e-6)
    np.testing.assert_allclose(view.lateral_deg, 0.0, atol=1e-6)


def test_long_recording_gives_windows_with_their_own_truth(tmp_path):
    source = FakeSource((20.0,), duration_s=1.6)
    records = ClipMaker(tiny_config())(source.fetch("fake-0", tmp_path), "fake", "train")
    assert [r.id for r in records] == ["fake-0-0000", "fake-0-0001"]
    assert [r.truth.sources[0].onset_s for r in records] == [(0.1, 0.5), ()]
    assert records[0].camera != records[1].camera


def test_recording_shorter_than_a_clip_is_refused(tmp_path):
    with pytest.raises(UserError, match="lasts 0.80 s, shorter than one clip of 2 s"):
        ClipMaker(tiny_config(clip_s=2.0))(FakeSource().fetch("fake-0", tmp_path), "fake", "train")


def test_stereo_sound_is_refused(tmp_path):
    recording = FakeSource().fetch("fake-0", tmp_path)
    media.write_audio(tmp_path / "s.flac", np.zeros((2, 44100), np.float32), AUDIO_RATE_HZ)
    with pytest.raises(UserError, match="2 audio channels .*expected 4 ambisonic"):
        ClipMaker(tiny_config())(
            dataclasses.replace(recording, audio_path=tmp_path / "s.flac"), "fake", "train"
        )


def test_level_is_one_gain_bounded_by_the_true_peak():
    rng = np.random.default_rng(0)
    ears = 1e-2 * rng.standard_normal((2, 44100)) * np.array([[1.0], [0.25]])
    loud, gain_db = normalise_level(ears, tiny_config())
    assert 20 * math.log10(np.sqrt(np.mean(loud**2))) == pytest.approx(-20.0, abs=0.01)
    np.testing.assert_allclose(loud, ears * 10 ** (gain_db / 20), rtol=1e-5)

    click = np.zeros((2, 44100))
    click[:, 1000] = 0.01
    peaky, gain_db = normalise_level(click, tiny_config(max_gain_db=100.0))
    assert 20 * math.log10(true_peak(peaky)) == pytest.approx(-1.0, abs=0.01)

    silent, gain_db = normalise_level(np.zeros((2, 100)), tiny_config())
    assert gain_db == 0 and not silent.any()


def test_true_peak_sees_between_the_samples():
    # a sine at a quarter of the rate, sampled 45 degrees off its crests: 3 dB above its samples
    wave = np.sin(np.pi / 2 * np.arange(4000) + np.pi / 4) * np.hanning(4000)
    assert true_peak(np.stack([wave, wave])) == pytest.approx(1.0, abs=0.02)
    assert np.abs(wave).max() < 0.71


def test_lr_difference_of_known_signals():
    a, b = np.random.default_rng(0).standard_normal((2, 100_000))
    assert lr_difference(np.stack([a, a])) == 0.0
    assert lr_difference(np.stack([a, -a])) == pytest.approx(1.0)
    assert lr_difference(np.stack([a, 0 * a])) == pytest.approx(0.5)
    assert lr_difference(np.stack([a, b])) == pytest.approx(0.5, abs=0.02)


def test_lens_follows_its_shares():
    config = tiny_config()
    lenses = [choose_hfov(clip_rng(0, f"r{i}"), config) for i in range(2000)]
    assert np.mean(np.array(lenses) == 90.0) == pytest.approx(0.5, abs=0.04)
    assert 50 <= min(lenses) < 52 and 108 < max(lenses) <= 110


def test_random_numbers_depend_on_seed_recording_and_window_alone():
    draws = [clip_rng(*key).random() for key in [(0, "a", 0), (0, "a", 1), (0, "b", 0), (1, "a", 0)]]
    assert len(set(draws)) == 4
    assert clip_rng(0, "a", 0).random() == draws[0]


def test_settings_are_plain_json_without_paths(built):
    settings = json.loads((built / "build.json").read_text())
    assert settings["config"]["trajectory"]["static_probability"] == 0.25
    assert settings["source"]["recordings"] == 3


def test_recordings_are_aimed_at_what_is_not_lowest():
    """A rumble at the right, 10 dB stronger than the noise at the left."""
    rng, count = np.random.default_rng(0), AUDIO_RATE_HZ * 2
    rumble = np.sin(2 * np.pi * 40 * np.arange(count) / AUDIO_RATE_HZ)
    foa = ambisonics.encode(0.1 * rumble, math.radians(-80), 0.0)
    foa = foa + ambisonics.encode(0.02 * rng.standard_normal(count), math.radians(40), 0.0)
    found = {
        from_hz: plan_camera(np.random.default_rng(0), foa, 90.0, tiny_config(aim_from_hz=from_hz), ())[1]
        for from_hz in (0.0, AIM_FROM_HZ)
    }
    assert found[0.0]["azimuth_deg"] < -60
    assert found[AIM_FROM_HZ]["azimuth_deg"] == pytest.approx(40, abs=1)
    with pytest.raises(UserError, match="aim_from_hz is -1, expected 0 to"):
        tiny_config(aim_from_hz=-1.0)
