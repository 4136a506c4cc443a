import golden_losses
import pytest

MEANING = (
    "training is not what it was; if that is meant: python tests/visaudio/training/golden_losses.py --write"
)


@pytest.mark.slow
def test_fifty_steps_of_the_tiny_preset_have_the_losses_they_had(tmp_path):
    losses = golden_losses.run(tmp_path / "one")
    assert golden_losses.furthest(losses, golden_losses.kept()) < 1e-3, MEANING
    assert golden_losses.run(tmp_path / "two") == losses  # bit for bit on one machine


def test_the_kept_losses_fall():
    kept = golden_losses.kept()
    assert len(kept) == golden_losses.STEPS
    assert sum(kept[-10:]) < 0.9 * sum(kept[:10])
