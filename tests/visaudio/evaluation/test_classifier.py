import numpy as np
import pytest

from bi_audio_dataset.schema import UserError
from visaudio.evaluation import classifier as classifiers
from visaudio.evaluation.classifier import (
    RANGE_DB,
    SAMPLE_RATE,
    SoundClassifier,
    TrainConfig,
    log_mel,
    train,
)


def beeps(pitch_hz: float, seed: int, seconds: float = 3.0) -> np.ndarray:
    """Short decaying tones at random times."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    sound = np.zeros_like(time)
    for onset in rng.uniform(0.1, seconds - 0.5, 3):
        after = np.maximum(time - onset, 0)
        sound += np.where(time >= onset, np.exp(-after / 0.1) * np.sin(2 * np.pi * pitch_hz * after), 0)
    return 0.2 * sound


def test_log_mel_does_not_hear_gain():
    sound = beeps(500.0, 0)
    np.testing.assert_allclose(log_mel(0.01 * sound), log_mel(sound), atol=1e-3)
    assert log_mel(sound).min() == pytest.approx(-RANGE_DB)
    assert log_mel(np.zeros(SAMPLE_RATE)).max() == pytest.approx(-RANGE_DB)


def test_training_tells_low_from_high_at_any_gain(tmp_path):
    names = ["low", "high"] * 6
    sounds = [beeps({"low": 300.0, "high": 2500.0}[name] * (1 + 0.02 * k), k) for k, name in enumerate(names)]
    mels = [log_mel(sound) for sound in sounds]
    config = TrainConfig(steps=25, batch_size=8, crop_s=0.5)
    trained = train(mels, [names.index(name) for name in names], ["low", "high"], config)
    classifiers.save(trained, tmp_path / "c.safetensors")
    assert (tmp_path / "c.safetensors").stat().st_mode & 0o777 == 0o644
    loaded = classifiers.load(tmp_path / "c.safetensors")
    for name, pitch_hz in (("low", 330.0), ("high", 2400.0)):
        audio = np.stack([beeps(pitch_hz, 99)] * 2)
        assert loaded.classify(audio, SAMPLE_RATE) == name
        assert loaded.classify(0.02 * audio, SAMPLE_RATE) == name
        assert loaded.classify(audio[:, ::2], SAMPLE_RATE // 2) == name  # another rate
    assert loaded.classify(np.zeros((2, SAMPLE_RATE)), SAMPLE_RATE) is None


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"not weights")
    with pytest.raises(UserError, match="not a sound classifier"):
        classifiers.load(tmp_path / "x.safetensors")


def test_frames_that_do_not_sound_are_not_heard():
    """Silence before and after changes nothing: pooling is over frames near the loudest."""
    import torch

    torch.manual_seed(0)
    classifier = SoundClassifier(["a", "b", "c"]).eval()
    mel = torch.from_numpy(log_mel(beeps(700.0, 3)))
    longer = torch.nn.functional.pad(mel, (0, 0, 40, 80), value=-RANGE_DB)
    with torch.inference_mode():
        torch.testing.assert_close(classifier(longer[None]), classifier(mel[None]), atol=2e-3, rtol=0)
