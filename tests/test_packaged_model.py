"""README's first command with the weights that ship: what it makes must be heard where the object is."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scripts import load_script

from bi_audio_dataset import media
from visaudio.evaluation import cues

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The example clips through `python sample.py --video examples`, with no option but where to write."""
    output = tmp_path_factory.mktemp("made")
    done = subprocess.run(
        [sys.executable, str(ROOT / "sample.py"), "--video", str(ROOT / "examples"), "--output", str(output)],
        capture_output=True,
        text=True,
        cwd=output,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return output


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bird", "bell"])
def test_files_are_complete(made, name):
    source = media.probe(ROOT / "examples" / f"{name}.mp4")
    video = media.probe(made / f"{name}.binaural.mp4")
    audio, rate = media.read_audio(made / f"{name}.binaural.flac")
    assert video.audio_channels == 2 and rate == 44100
    assert audio.shape[1] == pytest.approx(source.duration_s * rate, abs=1)
    assert abs(video.duration_s - source.duration_s) < 0.05
    assert np.abs(audio).max() > 0.02 and np.isfinite(audio).all()


@pytest.mark.slow
def test_the_bird_is_heard_where_it_is(made):
    """It calls on the right first, then on the left: the louder ear must be the nearer one."""
    audio, rate = media.read_audio(made / "bird.binaural.flac")
    lateral = load_script(ROOT / "examples" / "make_clip.py").EXAMPLES["bird"].lateral_deg()
    ild, level = cues.ild_db(audio, rate), cues.levels_db(audio, rate).max(axis=1)
    frames = min(len(ild), len(lateral))
    ild, level, lateral = ild[:frames], level[:frames], lateral[:frames]
    heard = (level > level.max() - 30) & (np.abs(lateral) > 20)
    assert heard.sum() >= 20
    assert (np.sign(ild[heard]) == np.sign(lateral[heard])).mean() >= 0.9
