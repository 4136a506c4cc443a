"""The wheel, installed elsewhere, works without the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from micro import write_clip

from bi_audio_dataset import media
from visaudio import hub

ROOT = Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "visaudio", "bi_audio_dataset")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, so that no build folder is left in the checkout."""
    copy = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.is_file():
            shutil.copy(source, copy / name)
    (copy / "README.md").touch()
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(copy / "dist"),
        ".",
    ]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (built,) = (copy / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(target),
        str(wheel),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return target


def call(installed: Path, script: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1"}
    command = [
        sys.executable,
        "-I",
        "-c",
        RUNNER,
        str(installed),
        str(installed / "bin" / script),
        *arguments,
    ]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


# Isolated, and without the checkout's editable install: what is imported is what was installed.
RUNNER = """
import runpy, sys
site, script = sys.argv[1:3]
sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in repr(f).lower()]
sys.path.insert(0, site)
sys.argv = sys.argv[2:]
import visaudio, bi_audio_dataset
assert visaudio.__file__.startswith(site) and bi_audio_dataset.__file__.startswith(site), visaudio.__file__
runpy.run_path(script, run_name="__main__")
"""


@pytest.mark.slow
def test_the_wheel_holds_code_weights_and_nothing_else(wheel):
    listed = zipfile.ZipFile(wheel).namelist()
    for name in ("config.json", "README.md", *(f"{part}.safetensors" for part in hub.PARTS)):
        assert f"visaudio/weights/tiny/{name}" in listed
    for name in ("page/page.css", "page/page.js", "listening/listen.html", "listening/listen.js"):
        assert f"visaudio/evaluation/{name}" in listed
    tops = {name.split("/")[0] for name in listed}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"visaudio", "bi_audio_dataset"}
    assert not [name for name in listed if name.endswith((".pyc", ".mp4", ".pt"))]
    assert wheel.stat().st_size <= 27e6


@pytest.mark.slow
def test_both_commands_start_outside_the_checkout(installed, tmp_path):
    for script, part in (("visaudio-sample", "--mask_away_clip"), ("visaudio-train", "--config")):
        done = call(installed, script, "--help", cwd=tmp_path)
        assert done.returncode == 0 and part in done.stdout, done.stderr[-2000:]


@pytest.mark.slow
def test_the_installed_command_makes_sound_with_the_packaged_weights(installed, tmp_path):
    video = write_clip(tmp_path / "x.mp4", 0.6)
    done = call(installed, "visaudio-sample", "--video", str(video), "--num_steps", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    audio, rate = media.read_audio(tmp_path / "x.binaural.flac")
    assert rate == 44100 and audio.shape == (2, 26460) and audio.std() > 0
    assert media.probe(tmp_path / "x.binaural.mp4").audio_channels == 2
