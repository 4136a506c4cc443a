import pytest

from bi_audio_dataset.schema import UserError
from visaudio.training.schedule import ScheduleConfig, learning_rate


def test_warm_up_is_linear_and_ends_at_the_peak():
    config = ScheduleConfig(peak=2e-4, warmup_steps=10, decay="constant")
    assert learning_rate(0, 100, config) == pytest.approx(2e-5)
    assert learning_rate(4, 100, config) == pytest.approx(1e-4)
    assert learning_rate(9, 100, config) == learning_rate(99, 100, config) == pytest.approx(2e-4)


def test_steps_of_mmaudio():
    config = ScheduleConfig(
        peak=1e-4, warmup_steps=1000, decay="step", milestones=(0.8, 0.9), step_factor=0.1
    )
    rates = [learning_rate(step, 300_000, config) for step in (239_999, 240_000, 269_999, 270_000)]
    assert rates == pytest.approx([1e-4, 1e-5, 1e-5, 1e-6])


@pytest.mark.parametrize(("decay", "middle"), [("cosine", 0.55), ("linear", 0.55)])
def test_decay_falls_from_its_start_to_the_final_ratio(decay, middle):
    config = ScheduleConfig(peak=1.0, warmup_steps=0, decay=decay, decay_start=0.5, final_ratio=0.1)
    assert learning_rate(500, 1000, config) == pytest.approx(1.0)
    assert learning_rate(750, 1000, config) == pytest.approx(middle)
    assert learning_rate(1000, 1000, config) == pytest.approx(0.1)
    quarter = learning_rate(625, 1000, config)
    assert quarter == pytest.approx(0.1 + 0.9 * (0.75 if decay == "linear" else 0.853553), abs=1e-5)


def test_unknown_decay_names_the_known_ones():
    with pytest.raises(UserError, match="'sine'.*cosine"):
        ScheduleConfig(decay="sine")
