"""Tables that compare kinds of latents, from scores that are known."""

import numpy as np
import pytest
import torch

from visaudio.evaluation.synth_benchmark import SUMS, Score
from visaudio.evaluation.target_report import Heard, figures_of, interval, markdown, mel_distance, summary


def heard(side_right: float, mel: float, frames: int = 10) -> Heard:
    sums = dict.fromkeys(SUMS, 1.0) | {"side_right": side_right, "side_frames": frames, "frames": frames}
    return Heard(Score(np.array([sums[name] for name in SUMS]), float("nan")), mel, 2 * mel)


def clips(more_right: float, more_mel: float) -> list[Heard]:
    return [heard(5 + i % 3 + more_right, 1.0 + i + more_mel) for i in range(12)]


def both(more_right: float = 0.0, more_mel: float = 0.0) -> dict[str, list[Heard]]:
    return {"round trip": clips(3, -0.5), "sampled": clips(more_right, more_mel)}


def test_figures_are_pooled_and_means_have_intervals():
    got = figures_of(clips(0, 0))
    assert got["side"][0] == pytest.approx(0.6)  # 5, 6 and 7 of 10 frames in turn
    assert got["mel_truth"][0] == pytest.approx(6.5) and got["mel_codec"][0] == pytest.approx(13.0)
    assert got["mel_truth"][1] < 6.5 < got["mel_truth"][2]
    assert interval(np.full(5, 2.0)) == [2.0, 2.0, 2.0]


def test_differences_are_of_the_same_clips():
    got = summary({"projected": both(), "continuous": both(1, 0.25)})
    assert got["clips"] == 12 and set(got["minus projected"]) == {"continuous"}
    less = got["minus projected"]["continuous"]
    assert less["side"] == pytest.approx([0.1, 0.1, 0.1])
    assert less["mel_truth"] == pytest.approx([0.25, 0.25, 0.25])
    assert got["round trip"]["continuous"]["side"][0] == pytest.approx(0.9)


def test_table_says_each_row_once_with_its_intervals():
    figures = summary({"projected": both(), "continuous": both(1), "requantised": both(2)})
    note = {"command": "python x", "commit": "abc", "flow_steps": 3, "batch_size": 2}
    note |= {"codec_steps": 7, "sampler": [25, 3.0]}
    figures |= {"made": note, "pca": {"dims": 4, "of": 8, "kept": 0.5}, "codec": {"mel_distance": 2.0}}
    table = markdown(figures)
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 3 + 3 + 2 and "variance in 4 of 8" in table
    assert "10.0 (10.0 to 10.0)" in rows[-2] and "20.0 (20.0 to 20.0)" in rows[-1]


def test_mel_distance_is_nothing_at_identity_and_grows_with_level():
    sound = 0.1 * torch.randn(2, 8192, generator=torch.Generator().manual_seed(0))
    assert mel_distance(sound, sound, 22050) == pytest.approx(0, abs=1e-5)
    # 6 dB of level in each of the four scales
    assert mel_distance(sound / 2, sound, 22050) == pytest.approx(4 * np.log(2), rel=0.01)
