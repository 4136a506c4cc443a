"""benchmarks/feature_limit.py: what it counts, and that it learns sides from features."""

import re
import types
from pathlib import Path

import numpy as np
import pytest
from scripts import load_script

from bi_audio_dataset.schema import UserError
from visaudio.data.feature_store import FeatureDataset
from visaudio.evaluation.baselines.head_training import sequence_of

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def script():
    return load_script(ROOT / "benchmarks" / "feature_limit.py")


@pytest.fixture(scope="module")
def heldout_features(heldout, features_of) -> Path:
    return features_of(heldout)


def test_truth_of_slots_and_frames(script, fake_biaudio, micro_features):
    """Bursts at 0.4 and 1.2 s, of which the features' second holds the first; fake-000 is at the left,
    fake-001 at the right, fake-002 nearer to the middle than SIDE_DEG."""
    sequence = sequence_of(FeatureDataset(micro_features, "train"))
    truths = script.truths(fake_biaudio, "train", sequence)
    assert [int(t.side.sum()) > 0 for t in truths.values()] == [True, False, False]
    left, right, middle = truths.values()
    assert (right.side == -left.side).all() and not middle.side.any() and middle.active.any()
    assert len(left.frame_active) == 25 and not left.frame_active[:9].any() and left.frame_active[10:20].all()
    assert left.active[left.frames[left.frame_active]].all() and left.gated


@pytest.mark.parametrize(
    ("active", "side", "expected"),
    [
        ([9, 9, 9, 9], [9, 9, 9, 9], [3, 3, 4, 2, 2, 1, 1]),
        ([9, -9, -9, -9], [9, -9, -9, -9], [3, 1, 1, 2, 1, 2, 1]),  # silent on a side is wrong there
        ([-9, -9, -9, 9], [9, -9, 9, 9], [3, 0, 1, 2, 0, 2, 0]),
    ],
)
def test_counts(script, monkeypatch, active, side, expected):
    said = np.stack([active, side], axis=1)
    monkeypatch.setattr(script, "read", lambda *given: said)
    truth = script.Truth(
        np.array([1, 1, 1, 0], bool), np.array([1, -1, 0, 0]), np.arange(4),
        np.array([1, 1, 1, 0], bool), np.array([1, -1, 0, 0]), True,
    )  # fmt: skip
    np.testing.assert_array_equal(script.count(None, None, "a", truth, 0.0), expected)


def test_it_reads_sides_that_the_features_hold(
    script, fake_biaudio, micro_features, heldout, heldout_features, capsys
):
    """The held-out clips are the training ones here, and the encoders random: it learns them by heart."""
    given = ["--train-data", str(fake_biaudio), "--train", str(micro_features), "--dataset", str(heldout)]
    assert script.main([*given, "--features", str(heldout_features), "--steps", "60"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "sounds, 1 clips | held-out ones, 3 clips |" in lines[2]
    (right,) = [line for line in lines if "side right, whether" in line]
    assert float(right.split("|")[3].split()[0]) > 95


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"--train-data": "held"}, "3 of 3 clips of --train .* are not in --train-data .* is 'fake-000'"),
        (
            {"--features": "micro"},
            r"holds no features of the split that is wanted \(.* has 3 clips of it\)",
        ),
        ({"--write-to": "nowhere.md"}, "nowhere.md: holds no <!-- feature_limit: begin -->"),
    ],
)
def test_what_does_not_belong_together_is_one_line_before_any_training(
    script, fake_biaudio, micro_features, heldout, heldout_features, capsys, monkeypatch, changed, said
):
    def never(*_):
        raise AssertionError("it trains")

    monkeypatch.setattr(script, "fit", never)
    places = {"fake": fake_biaudio, "held": heldout, "micro": micro_features}
    given = {"--train-data": fake_biaudio, "--train": micro_features, "--dataset": heldout}
    given |= {"--features": heldout_features}
    given |= {flag: places.get(name, name) for flag, name in changed.items()}
    assert script.main([str(word) for pair in given.items() for word in pair]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and re.search(said, err)


def test_clips_on_one_side_alone_are_told(script):
    features = types.SimpleNamespace(ids=["a", "b"])
    script.check_clips(features, {"a": 1, "b": 2}, "--train F", "--train-data D")
    for truth, said in (
        ({"a": 1}, "1 of 2 clips of --train F are not in --train-data D, the first is 'b'"),
        ({"a": 1, "b": 2, "c": 3}, "1 of 3 clips of --train-data D are not in --train F, the first is 'c'"),
    ):
        with pytest.raises(UserError, match=f"do not belong together: {said}$"):
            script.check_clips(features, truth, "--train F", "--train-data D")


def test_features_of_other_weights_are_one_line(
    script, fake_biaudio, micro_features, heldout, heldout_features, capsys, monkeypatch
):
    real = script.FeatureDataset

    def other(folder, split):
        found = real(folder, split)
        if Path(folder) == heldout_features:
            found.made_from = {**found.made_from, "weights": {"clip": "other"}}
        return found

    monkeypatch.setattr(script, "FeatureDataset", other)
    given = ["--train-data", str(fake_biaudio), "--train", str(micro_features), "--dataset", str(heldout)]
    assert script.main([*given, "--features", str(heldout_features)]) == 2
    assert "are features of other weights" in capsys.readouterr().err
