"""Real binaural recordings and real stereo: what their MANIFEST says of them comes out of the suite.

The manifest's figures, of at most 60 s: ILD 10 log10(EL / ER); diff sum((L-R)^2) / (2 sum(L^2+R^2)); ildstd
the standard deviation of the ILD over windows of 100 ms. They are printed to two and four decimals.
"""

import re
from pathlib import Path

import numpy as np
import pytest

from bi_audio_dataset import media
from visaudio.evaluation import cues
from visaudio.evaluation.measures import Scene, Sound
from visaudio.evaluation.space import SpaceMeasure

FOLDERS = ("binaural_gt", "video_stereo", "video_mono", "sfx_mono")


def listed(manifest: Path) -> dict[str, tuple[float, float, float]]:
    """ "FOLDER/FILE" -> diff, ILD, ildstd, of every file that has them."""
    found, folder = {}, ""
    for line in manifest.read_text().splitlines():
        if line.startswith("## "):
            folder = line[3:].strip()
        cells = [cell.strip() for cell in line.strip("| ").split("|")]
        figures = re.fullmatch(r"\S+ ([\d.]+) / \S+ / (\S+) / (\S+)", cells[6]) if len(cells) == 8 else None
        if folder in FOLDERS and figures:
            found[f"{folder}/{cells[0]}"] = tuple(map(float, figures.groups()))
    return found


@pytest.mark.slow  # decodes
@pytest.mark.parametrize("folder", FOLDERS)
def test_every_file_of_the_manifest(shared_dir, folder):
    """ILD within 0.1 dB (0.006 is what two decimals leave), diff within 0.001, ildstd within 0.1 dB."""
    if not (shared_dir / "media" / "MANIFEST.md").is_file():
        pytest.skip("no media")
    measure, wrong = SpaceMeasure(), []
    every = listed(shared_dir / "media" / "MANIFEST.md")
    files = {name: figures for name, figures in every.items() if name.startswith(folder)}
    assert len(files) >= 3
    for name, (diff, ild_db, spread_db) in files.items():
        audio, rate = media.read_audio(shared_dir / "media" / name, duration_s=60.0)
        heard = measure.hear(Sound(audio, rate), Scene(name, audio.shape[1] / rate))
        row = measure.compare(heard, heard, Scene(name, audio.shape[1] / rate))
        levels = cues.levels_db(audio, rate, rate_hz=10.0, window_s=0.1)
        levels = levels[: audio.shape[1] // round(0.1 * rate)]  # whole windows
        found = (row["lr_difference"], row["lr_ratio_db"], float(np.std(levels[:, 0] - levels[:, 1])))
        off = np.abs(np.array(found) - (diff, ild_db, spread_db))
        if not (off < (1e-3, 0.1, 0.1)).all():
            wrong.append((name, found, (diff, ild_db, spread_db)))
        assert row["ild_error_db"] == 0.0 and row["silent_share"] == 0.0
    assert wrong == []


def test_delay_of_a_dummy_head_recording(shared_dir):
    """The saxophone: "right ear leads by 0.44 ms" says the manifest, of the whole file. So it is in more than
    three of four clear frames (IACC over 0.8), by 0.3 to 0.5 ms; a tone's other peaks lie in the rest."""
    path = shared_dir / "media" / "binaural_gt" / "mrs_saxophone" / "binaural.wav"
    if not path.is_file():
        pytest.skip("no binaural recordings")
    audio, rate = media.read_audio(path)
    heard = SpaceMeasure().hear(Sound(audio, rate), Scene("saxophone", audio.shape[1] / rate))
    clear = heard["iacc"] > 0.8
    assert clear.sum() > 50
    for name in ("itd_gcc_s", "itd_phase_s"):
        right_first = heard[name][clear] < 0
        assert right_first.mean() > 0.75
        assert -0.5e-3 < np.median(heard[name][clear][right_first]) < -0.3e-3


def test_mirror_of_a_recording(shared_dir):
    """Exchanged ears negate every signed cue of a real recording."""
    path = shared_dir / "media" / "binaural_gt" / "mrs_cymbals" / "binaural.wav"
    if not path.is_file():
        pytest.skip("no binaural recordings")
    audio, rate = media.read_audio(path, duration_s=4.0)
    measure, scene = SpaceMeasure(), Scene("cymbals", 4.0)
    ours, mirrored = (measure.hear(Sound(a, rate), scene) for a in (audio, audio[::-1].copy()))
    np.testing.assert_allclose(mirrored["ild_db"], -ours["ild_db"], atol=1e-4)
    np.testing.assert_allclose(mirrored["iacc"], ours["iacc"], atol=1e-4)
    for name in ("itd_gcc_s", "itd_phase_s"):  # but where two peaks are as good as equal
        assert (np.abs(mirrored[name] + ours[name]) < 1e-7).mean() > 0.98
