"""The mono-to-binaural head: the mirror is built in, it learns, and comes back from the disk as it was."""

import json

import numpy as np
import pytest
import torch

from bi_audio_dataset.schema import UserError
from visaudio.evaluation.baselines.head import (
    CONFIG,
    WEIGHTS,
    HeadConfig,
    Seen,
    SpatialiserHead,
    difference,
    inverse,
    load,
    save,
    transform,
)
from visaudio.evaluation.baselines.head_training import loss

CLOCKS = {"sync_per_segment": 8, "sync_hop": 4, "sync_slot_hz": 12.5, "clip_fps": 8.0}
SIZES = {"sample_rate": 8000, "n_fft": 128, "hop": 64, "width": 16, "blocks": 1}
CONFIG_SMALL = HeadConfig(6, 5, 4, encoders={"clip": "a"}, **CLOCKS, **SIZES)


def head(seed: int = 0) -> SpatialiserHead:
    """Random in its last layer too, which starts at zero."""
    torch.manual_seed(seed)
    made = SpatialiserHead(CONFIG_SMALL).eval()
    torch.nn.init.normal_(made.out.weight, std=0.3)
    return made


def seen(batch: int = 1, seed: int = 0, seconds: float = 2.0) -> Seen:
    """Features of `seconds`: segments of 8 slots every 4, 12.5 slots a second."""
    generator = torch.Generator().manual_seed(seed)
    segments = max(1, round(seconds * 12.5 / 4) - 1)
    sync = torch.randn(batch, 2, 8 * segments, 6, generator=generator)
    return Seen(sync, torch.randn(batch, 2, round(seconds * 8), 4, 5, generator=generator))


def sound(seconds: float = 2.0, rate: int = 8000, seed: int = 0) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate)).astype(np.float32)


def spectrum(batch: int = 1, seed: int = 0) -> torch.Tensor:
    return transform(CONFIG_SMALL, torch.from_numpy(np.stack([sound(seed=seed + k) for k in range(batch)])))


def test_mirrored_frames_swap_the_ears_exactly():
    mask = head()(spectrum(2), seen(2))
    assert mask.abs().mean() > 0.05
    torch.testing.assert_close(head()(spectrum(2), seen(2).mirrored()), -mask, atol=0, rtol=0)


def test_a_picture_that_is_its_own_mirror_image_gives_equal_ears():
    views = seen()
    same = Seen(views.sync[:, :1].expand(-1, 2, -1, -1), views.grid[:, :1].expand(-1, 2, -1, -1, -1))
    assert head()(spectrum(), same).abs().max() == 0


def test_mirrored_examples_give_the_same_gradients():
    """Why mirror augmentation would show it nothing new."""
    mono, side = spectrum(2), 0.5 * spectrum(2, seed=7)
    gradients = []
    for view, sign in ((seen(2), 1), (seen(2).mirrored(), -1)):
        model = head()
        loss(CONFIG_SMALL, model(mono, view), mono, sign * side, torch.ones(2), 0.05).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert gradients[0].abs().max() > 1e-3
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)


def test_what_is_seen_belongs_to_its_time():
    """A crop that starts at 0.8 s sees what the whole sees from there on."""
    model = head()
    whole = model._seen(seen(), 200, torch.zeros(1))
    part = model._seen(seen(), 100, torch.full((1,), 0.8))
    torch.testing.assert_close(part, whole[:, :, 100:], atol=1e-5, rtol=1e-5)


def test_the_mask_is_bounded_and_it_starts_with_equal_ears():
    torch.manual_seed(0)
    model = SpatialiserHead(CONFIG_SMALL)
    assert model(spectrum(), seen()).abs().max() == 0
    loss(CONFIG_SMALL, model(spectrum(), seen()), spectrum(), spectrum(1, 5), torch.ones(1), 0.0).backward()
    assert model.out.weight.grad.abs().max() > 0  # it does not stay there
    torch.nn.init.normal_(model.out.weight, std=100.0)
    assert model(spectrum(), seen()).abs().max() <= CONFIG_SMALL.max_mask + 1e-4


def test_it_learns_four_sounds_by_heart():
    """Differences of either sign, that only the picture tells."""
    torch.manual_seed(0)
    model, mono, views = SpatialiserHead(CONFIG_SMALL), spectrum(4)[..., :60], seen(4, seconds=0.8)
    side = torch.tensor([0.5, -0.5, 0.8j, -0.8j])[:, None, None] * mono
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        value = loss(CONFIG_SMALL, model(mono, views), mono, side, torch.full((4,), 1e-3), 0.0)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    wrong = (model(mono, views) * mono - side).abs().square().sum() / side.abs().square().sum()
    assert wrong.item() < 0.02


def test_it_comes_back_bit_for_bit(tmp_path):
    model = head()
    save(model, tmp_path, {"steps": 3})
    again = load(tmp_path)
    assert again.config == model.config
    torch.testing.assert_close(again(spectrum(), seen()), model(spectrum(), seen()), atol=0, rtol=0)
    assert json.loads((tmp_path / CONFIG).read_text())["training"] == {"steps": 3}


def test_a_folder_without_a_head_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match="holds no spatialiser.json"):
        load(tmp_path)
    save(head(), tmp_path, {})
    (tmp_path / WEIGHTS).write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be read as weights"):
        load(tmp_path)
    values = json.loads((tmp_path / CONFIG).read_text())
    values["config"]["widht"] = 3
    (tmp_path / CONFIG).write_text(json.dumps(values))
    with pytest.raises(UserError, match="did you mean width"):
        load(tmp_path)


@pytest.mark.parametrize("rate", [8000, 22050])
def test_the_difference_is_that_of_the_mask(rate):
    """At the head's rate to rounding; at a higher one in the band below its Nyquist frequency."""
    import soxr

    mono = sound(rate=rate)
    at_head = mono if rate == 8000 else soxr.resample(mono, rate, 8000)
    spectra = transform(CONFIG_SMALL, torch.from_numpy(at_head)[None])
    with torch.inference_mode():
        expected = inverse(CONFIG_SMALL, head()(spectra, seen()) * spectra, len(at_head))[0].numpy()
    found = difference(head(), mono, rate, [(0.0, seen())])
    assert found.shape == mono.shape
    back = found if rate == 8000 else soxr.resample(found, rate, 8000)
    wrong = ((back - expected) ** 2)[500:-500].sum() / (expected**2)[500:-500].sum()
    assert wrong < (1e-10 if rate == 8000 else 0.01)  # the resampler takes the uppermost band


def test_windows_are_joined_without_a_jump():
    """Two windows that see the same give what one gives, but near the ends of what the first one sees."""
    mono, model = sound(3.0), head()
    views = seen(seconds=3.0)
    constant = Seen(
        views.sync[:, :, :1].expand(-1, -1, 64, -1), views.grid[:, :, :1].expand(-1, -1, 24, -1, -1)
    )
    short = Seen(constant.sync[:, :, :40], constant.grid[:, :, :16])  # 2 s
    one = difference(model, mono, 8000, [(0.0, constant)])
    two = difference(model, mono, 8000, [(0.0, short), (1.0, short)])
    assert np.abs(one).mean() > 1e-3
    middle = slice(1600, -1600)
    assert np.abs(two - one)[middle].mean() < 0.15 * np.abs(one).mean()
    assert difference(model, sound(0.005), 8000, [(0.0, short)]).shape == (40,)  # shorter than one frame
