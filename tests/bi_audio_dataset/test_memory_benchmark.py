"""benchmarks/dataset_memory.py sees what processes hold, and its films are what the builder takes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scripts import load_script

from bi_audio_dataset import media
from bi_audio_dataset.sources.folder import FolderSource

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "dataset_memory.py"


@pytest.fixture(scope="module")
def benchmark():
    if not SCRIPT.is_file():
        pytest.skip("no benchmarks/ beside the tests")
    return load_script(SCRIPT)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc")
def test_peaks_of_a_process_below_another(benchmark):
    """A grandchild that has held 300 MB and let go of it."""
    grandchild = "x = bytearray(300_000_000); del x; print('done', flush=True); input()"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"
    process = subprocess.Popen(
        [sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "done\n"
        found = {pid: benchmark.memory(pid) for pid in benchmark.tree(process.pid)}
    finally:
        process.communicate("\n")
    assert len(found) == 2
    held, peak = found[max(found, key=lambda pid: found[pid][1])]
    assert 3e8 < peak < 4e8 and held < 1e8
    assert found[process.pid][1] < 1e8
    assert benchmark.memory(process.pid) == (0, 0)


def test_its_films_are_whole_panoramas_with_ambisonics(benchmark, tmp_path):
    benchmark.write_film(tmp_path / "a.mkv", 1.0, (256, 128))
    recording = FolderSource(tmp_path, channels="ambix").fetch("a", tmp_path)
    assert media.probe(recording.video_path).num_frames == benchmark.FPS
    foa, rate = media.read_audio(recording.audio_path)
    assert (foa.shape, rate) == ((4, benchmark.RATE), benchmark.RATE)
    assert np.corrcoef(foa)[0, 3] > 0.99


@pytest.mark.slow
def test_a_build_is_measured(benchmark, tmp_path):
    (tmp_path / "films").mkdir()
    benchmark.write_film(tmp_path / "films/a.mkv", benchmark.CLIP_S, (256, 128))
    found = benchmark.measure(tmp_path / "films", tmp_path / "set", 2, 1, "64x36")
    assert found["clips"] == 2 and len(found["workers_gb"]) == 1
    assert 0.05 < found["largest_worker_gb"] < benchmark.LIMIT_GB
