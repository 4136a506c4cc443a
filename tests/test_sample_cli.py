import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest
from micro import FPS, micro_components, write_clip

from bi_audio_dataset import media
from visaudio import hub
from visaudio.cli import sample as cli


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    components = micro_components(num_steps=1, cfg_strength=1.0)
    components.info = hub.ModelInfo(limits="knows squares alone")
    return str(hub.save_pretrained(tmp_path_factory.mktemp("model") / "micro", components))


@pytest.fixture
def run(model, capsys):
    """run(arguments...) -> (exit code, stdout, stderr)."""

    def call(*arguments):
        code = cli.main(["--variant", model, "--video", *map(str, arguments)])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out, captured.err

    return call


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def error_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("note:")]


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(p) for p in container.demux(container.streams.video[0]) if p.size]


def test_one_video_gives_picture_and_sound_beside_it(run, tmp_path):
    video = write_clip(tmp_path / "x.mp4", 0.6)
    code, out, err = run(video)
    assert code == 0 and "note: knows squares alone" in err
    assert names(tmp_path) == ["x.binaural.flac", "x.binaural.mp4", "x.mp4"]
    assert str(tmp_path / "x.binaural.mp4") in out
    composite = media.probe(tmp_path / "x.binaural.mp4")
    assert (composite.num_frames, composite.audio_channels, composite.audio_rate) == (15, 2, 44100)
    assert composite.duration_s == pytest.approx(0.6, abs=1e-6)
    assert packets(tmp_path / "x.binaural.mp4") == packets(video)
    audio, rate = media.read_audio(tmp_path / "x.binaural.flac")
    assert rate == 44100 and audio.shape == (2, 26460)
    aac, _ = media.read_audio(tmp_path / "x.binaural.mp4")
    assert np.corrcoef(aac[0, :26000], audio[0, :26000])[0, 1] > 0.9


def test_flags_reach_the_sound(run, tmp_path):
    video = write_clip(tmp_path / "x.mp4", 0.4)
    sounds = {}
    for label, flags in {
        "plain": [],
        "again": ["--seed", "42"],
        "seed": ["--seed", "7"],
        "steps": ["--num_steps", "3"],
        "guided": ["--cfg_strength", "3"],
        "prompt": ["--prompt", "a bell"],
        "negative": ["--cfg_strength", "3", "--negative_prompt", "a bell"],
        "masked": ["--mask_away_clip"],
        "lens": ["--hfov_deg", "60"],
    }.items():
        code, _, _ = run(video, "--output", tmp_path / label, "--skip_video_composite", *flags)
        assert code == 0 and names(tmp_path / label) == ["x.binaural.flac"]
        sounds[label] = media.read_audio(tmp_path / label / "x.binaural.flac")[0]
    assert np.array_equal(sounds.pop("plain"), sounds["again"])
    plain = sounds.pop("again")
    for label, sound in sounds.items():
        assert np.abs(sound - plain).max() > 1e-6, label
    assert np.abs(sounds["negative"] - sounds["guided"]).max() > 1e-6


def test_duration_shorter_and_longer_than_the_video(run, tmp_path):
    video = write_clip(tmp_path / "x.mp4", 0.6)
    for seconds in (0.3, 1.7):
        folder = tmp_path / str(seconds)
        assert run(video, "--output", folder, "--duration", seconds)[0] == 0
        audio, rate = media.read_audio(folder / "x.binaural.flac")
        assert audio.shape == (2, round(seconds * rate))
        assert media.probe(folder / "x.binaural.mp4").duration_s == pytest.approx(0.6, abs=1e-6)


def test_existing_output_is_refused_unless_overwrite(run, tmp_path):
    video = write_clip(tmp_path / "x.mp4", 0.4)
    (tmp_path / "x.binaural.flac").write_bytes(b"mine")
    code, _, err = run(video)
    assert code == 2 and len(error_lines(err)) == 1 and "exists already; --overwrite" in err
    assert (tmp_path / "x.binaural.flac").read_bytes() == b"mine"
    assert names(tmp_path) == ["x.binaural.flac", "x.mp4"]
    assert run(video, "--overwrite")[0] == 0
    assert media.read_audio(tmp_path / "x.binaural.flac")[0].shape == (2, 17640)


def wrong_inputs(folder: Path) -> dict[str, str]:
    """name of a bad video -> what must be said of it."""
    write_clip(folder / "whole.mp4", 2.0)
    (folder / "cut.mp4").write_bytes((folder / "whole.mp4").read_bytes()[:3000])  # the index is gone
    (folder / "whole.mp4").unlink()
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("this is not a film\n" * 50)
    media.write_audio(folder / "tone.flac", np.zeros((2, 8000), np.float32), 8000)
    (folder / "tone.flac").rename(folder / "sound.mp4")
    return {
        "missing.mp4": "no such file",
        "empty.mp4": "empty",
        "text.mp4": "text|cannot be read as media",
        "sound.mp4": "no picture",
        "cut.mp4": "cut short|cannot be read|no frame",
    }


@pytest.mark.parametrize("name", ["missing.mp4", "empty.mp4", "text.mp4", "sound.mp4", "cut.mp4"])
def test_a_bad_input_is_one_line_and_leaves_nothing(run, tmp_path, name):
    (tmp_path / "in").mkdir()
    expected = wrong_inputs(tmp_path / "in")[name]
    before = names(tmp_path / "in")
    code, out, err = run(tmp_path / "in" / name, "--output", tmp_path / "out")
    assert code == 2 and out == ""
    (line,) = error_lines(err)
    assert name in line
    assert any(part in line for part in expected.split("|")), line
    assert names(tmp_path / "in") == before and not (tmp_path / "out").exists()


def test_an_empty_folder_is_refused(run, tmp_path):
    (tmp_path / "none").mkdir()
    code, _, err = run(tmp_path / "none")
    assert code == 2 and "holds no video" in err and len(error_lines(err)) == 1


def test_a_batch_goes_on_skips_and_names_failures(run, tmp_path):
    films, out_folder = tmp_path / "films", tmp_path / "out"
    films.mkdir()
    bad = wrong_inputs(films)
    write_clip(films / "a.mp4", 0.4)
    write_clip(films / "b.mp4", 0.4)
    (films / "notes.txt").write_text("not a film")
    code, out, err = run(films, "--output", out_folder)
    assert code == 2
    summary = out.splitlines()[-1]
    assert summary.startswith("2 written, 0 skipped") and "4 failed" in summary
    for name in set(bad) - {"missing.mp4"}:
        assert name in summary
    assert len(error_lines(err)) == 4
    made = [f"{x}.binaural.{end}" for x in "ab" for end in ("flac", "mp4")]
    assert names(out_folder) == made

    write_clip(films / "c.mp4", 0.4)
    stamp = (out_folder / "a.binaural.mp4").stat().st_mtime_ns
    code, out, _ = run(films / "a.mp4", films / "b.mp4", films / "c.mp4", "--output", out_folder)
    assert code == 0 and out.splitlines()[-1].startswith("1 written, 2 skipped")
    assert (out_folder / "a.binaural.mp4").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("error", [RuntimeError("out of luck"), MemoryError(), av.error.EOFError(1, "end")])
def test_an_unexpected_error_in_one_video_spares_the_others(run, tmp_path, monkeypatch, error):
    for name in "ab":
        write_clip(tmp_path / f"{name}.mp4", 0.12)
    mux = media.mux_binaural

    def fails_for_a(video, *arguments, **options):
        if video.name == "a.mp4":
            raise error
        return mux(video, *arguments, **options)

    monkeypatch.setattr(media, "mux_binaural", fails_for_a)
    code, out, err = run(tmp_path)
    assert (
        code == 2
        and out.splitlines()[-1]
        == f"1 written, 0 skipped (their outputs exist), 1 failed: {tmp_path / 'a.mp4'}"
    )
    (line,) = error_lines(err)
    assert str(tmp_path / "a.mp4") in line
    assert names(tmp_path) == ["a.mp4", "b.binaural.flac", "b.binaural.mp4", "b.mp4"]


def test_outputs_are_all_written_or_left_as_they_were(run, tmp_path):
    video = write_clip(tmp_path / "x.mp4", 0.12)
    (tmp_path / "x.binaural.flac").mkdir()  # cannot be replaced by a file
    code, _, err = run(video, "--overwrite")
    assert code == 2 and "cannot be written" in err
    assert names(tmp_path) == ["x.binaural.flac", "x.mp4"]
    (tmp_path / "x.binaural.mp4").write_bytes(b"mine")
    assert run(video, "--overwrite")[0] == 2
    assert (tmp_path / "x.binaural.mp4").read_bytes() == b"mine"
    assert names(tmp_path) == ["x.binaural.flac", "x.binaural.mp4", "x.mp4"]


def test_a_folder_run_twice_does_not_eat_its_own_output(run, tmp_path):
    write_clip(tmp_path / "a.mp4", 0.4)
    assert run(tmp_path)[0] == 0
    code, out, _ = run(tmp_path)
    assert code == 0 and out.splitlines()[-1].startswith("0 written, 1 skipped")
    assert names(tmp_path) == ["a.binaural.flac", "a.binaural.mp4", "a.mp4"]


def test_two_videos_of_one_name_do_not_overwrite_each_other(run, tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_clip(tmp_path / folder / "x.mp4", 0.4)
    code, out, err = run(tmp_path / "one", tmp_path / "two", "--output", tmp_path / "out")
    assert code == 2 and "is that of" in err
    assert out.splitlines()[-1].startswith("1 written, 0 skipped")


@contextmanager
def largest_file(size: int):
    """A full disk, as far as this process can tell."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("stopped", ["sound", "composite"])
def test_a_full_disk_leaves_nothing(run, tmp_path, stopped):
    size = {"width": 640, "height": 480} if stopped == "composite" else {}
    video = write_clip(tmp_path / "x.mp4", 0.12, **size)
    room = video.stat().st_size if stopped == "composite" else 2000
    assert (room > 8 * 0.12 * 44100) == (stopped == "composite")  # room for the temporary sound, or not
    with largest_file(room):
        code, _, err = run(video, "--output", tmp_path / "out")
    assert code == 2 and len(error_lines(err)) == 1, err
    assert "x.binaural.mp4: cannot be written" in err if stopped == "composite" else "temporary sound" in err
    assert names(tmp_path) == ["x.mp4"]


def test_an_output_that_is_no_folder_is_refused(run, tmp_path):
    video = write_clip(tmp_path / "x.mp4", 0.4)
    (tmp_path / "file").write_text("x")
    for output in (tmp_path / "file", tmp_path / "file" / "deeper"):
        code, _, err = run(video, "--output", output)
        assert code == 2 and len(error_lines(err)) == 1 and "folder" in err
    assert run(video, "--output", "/proc/none")[0] == 2


def test_wrong_values_are_one_line(run, tmp_path, capsys):
    video = write_clip(tmp_path / "x.mp4", 0.4)
    assert run(video, "--hfov_deg", "200")[0] == 2
    assert run(video, "--variant", "no_such_model")[0] == 2
    for flags in (
        ["--num_steps", "0"],
        ["--duration", "-3"],
        ["--duration", "1e300"],
        ["--nonsense"],
        ["--seed", "x"],
        ["--seed", "9" * 20],
    ):
        with pytest.raises(SystemExit) as caught:
            run(video, *flags)
        assert caught.value.code == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert names(tmp_path) == ["x.mp4"]


def test_an_interruption_leaves_nothing(run, tmp_path, monkeypatch):
    video = write_clip(tmp_path / "x.mp4", 0.4)

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(media, "mux_binaural", interrupted)
    code, _, err = run(video)
    assert code == 130 and error_lines(err) == ["interrupted"]
    assert names(tmp_path) == ["x.mp4"]


@pytest.mark.parametrize(
    ("seconds", "size"),
    [(0.04, (64, 48)), (0.3, (64, 48)), (2.6, (64, 48)), (0.4, (48, 80)), (0.4, (66, 30))],
    ids=["one frame", "0.3 s", "three windows", "portrait", "wide"],
)
def test_any_length_and_shape(run, tmp_path, seconds, size):
    video = write_clip(tmp_path / "x.mp4", seconds, width=size[0], height=size[1])
    assert run(video)[0] == 0
    info = media.probe(tmp_path / "x.binaural.mp4")
    assert info.num_frames == max(1, round(seconds * FPS)) and (info.width, info.height) == size
    audio, rate = media.read_audio(tmp_path / "x.binaural.flac")
    assert audio.shape == (2, round(media.probe(video).duration_s * rate))


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "made"),
    [
        ("x.mp4", "libx264", "yuv444p", ".mp4"),
        ("x.webm", "libvpx", "yuv420p", ".webm"),
        ("x.avi", "ffv1", "bgr0", ".mkv"),
    ],
)
def test_odd_sizes_and_pictures_that_mp4_cannot_hold(run, tmp_path, name, codec, pixels, made):
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = 63, 47, pixels
        for picture in np.random.default_rng(0).integers(0, 255, (5, 47, 63, 3), dtype=np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    code, _, err = run(tmp_path / name)
    assert code == 0, err
    info = media.probe(tmp_path / f"x.binaural{made}")
    assert (info.width, info.height, info.num_frames, info.audio_channels) == (63, 47, 5, 2)
    assert packets(tmp_path / f"x.binaural{made}") == packets(tmp_path / name)


def test_help_states_rates_and_limits(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    text = capsys.readouterr().out
    assert caught.value.code == 0
    for part in (
        "22.05 kHz",
        "44.1 kHz",
        "BiAudio-Synth",
        "--mask_away_clip",
        "--full_precision",
        "(default: tiny)",
    ):
        assert part in text


def test_the_script_at_the_top_refuses_without_loading_the_model(tmp_path):
    """A mistake is told before torch is imported."""
    root = Path(__file__).parents[1]
    command = [
        sys.executable,
        "-X",
        "importtime",
        str(root / "sample.py"),
        "--video",
        str(tmp_path / "no.mp4"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert [line for line in lines if not line.startswith("import time:")] == [
        f"error: {tmp_path / 'no.mp4'}: no such file"
    ]
    assert not any(line.endswith(("| torch", "| transformers", "| open_clip")) for line in lines)


MEMORY = """
import resource, sys
from visaudio.cli import sample
for video in sys.argv[3:]:
    assert sample.main(["--variant", sys.argv[1], "--output", sys.argv[2], "--video", video]) == 0
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_length(model, tmp_path):
    """Peak resident memory after 20 s, then after 100 s (134 windows; its sound alone is 35 MB)."""
    videos = [str(write_clip(tmp_path / f"{seconds}.mp4", seconds)) for seconds in (20.0, 100.0)]
    command = [sys.executable, "-c", MEMORY, model, str(tmp_path / "out"), *videos]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    short, long = (int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("peak"))
    assert long - short < 15_000  # kB
    assert "100/100 s of sound" in done.stderr  # the bar of a long video


def shared_videos() -> list[Path]:
    import os

    root = Path(os.environ.get("VISAUDIO_SHARED", Path(__file__).parents[2] / "shared")) / "media"
    return sorted(p for part in ("video_stereo", "video_mono") for p in (root / part).glob("*.*"))


@pytest.mark.slow
@pytest.mark.parametrize("video", shared_videos(), ids=lambda p: p.name)
def test_real_videos(run, tmp_path, video):
    if video.suffix.lower() not in cli.VIDEO_SUFFIXES:
        pytest.skip("not a video")
    assert run(video, "--output", tmp_path)[0] == 0
    (composite,) = (p for p in tmp_path.iterdir() if p.suffix != ".flac")
    before, after = media.probe(video), media.probe(composite)
    assert after.audio_channels == 2 and after.num_frames == before.num_frames
    assert after.duration_s == pytest.approx(before.duration_s, abs=1e-3)
    audio, rate = media.read_audio(tmp_path / f"{video.stem}.binaural.flac")
    assert audio.shape == (2, round(before.duration_s * rate))
    shutil.rmtree(tmp_path)
