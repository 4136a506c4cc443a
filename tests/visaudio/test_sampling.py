from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from micro import micro_components, moving_square, write_clip

from bi_audio_dataset import media
from bi_audio_dataset.schema import UserError
from visaudio.codec.base import Codec
from visaudio.codec.spectral import SpectralCodec, SpectralCodecConfig
from visaudio.model.conditions import Conditions
from visaudio.sampling import (
    SamplingConfig,
    _BlockDecoder,
    encode_conditions,
    encode_frames,
    generate,
    generate_blocks,
)
from visaudio.sequence import SequenceConfig, to_tokens
from visaudio.windows import plan_windows

# 10 tokens of one frame of 4 samples: latents can be read off the sound
SEQUENCE = SequenceConfig(duration_s=1.0, sample_rate=40, latent_hop=4, frames_per_token=1)


class ReadableCodec(Codec):
    """Latents of one dimension; each frame is four samples of its value."""

    sample_rate, latent_hop, latent_dim = 40, 4, 1
    device = torch.device("cpu")

    def decode(self, latents, num_samples=None):
        return latents.transpose(1, 2).repeat_interleave(4, dim=-1)[..., :num_samples]


class KnownNetwork:
    """The velocity is a given function of (x, t, the window's number)."""

    def __init__(self, velocity):
        self.velocity = velocity
        self.config = SimpleNamespace(token_dim=1, text_tokens=1, text_dim=1)
        self.latent_mean = torch.zeros(1)

    def preprocess_conditions(self, conditions, num_tokens):
        return conditions.hfov_rad

    def predict_velocity(self, x, t, window):
        return self.velocity(x, t[0], window[0])

    def unnormalize(self, tokens):
        return 3 * tokens


def conditions_of_windows(count, batch=1):
    empty = torch.zeros(batch, 1, 1)
    return [
        Conditions(empty, empty, empty, empty[:, None], torch.full((batch,), float(w))) for w in range(count)
    ]


def latents_of(velocity, duration_s=1.0, windows=1, **options):
    """What a known velocity leads to, (2, N), straight from the sound."""
    options = {"sequence": SEQUENCE, "num_steps": 3, "overlap_s": 0.4, **options}
    audio = generate(
        KnownNetwork(velocity),
        ReadableCodec(),
        conditions_of_windows(windows),
        duration_s=duration_s,
        **options,
    )
    return audio[0, :, ::4] / 3


def test_noise_plus_the_integral_of_the_velocity():
    noise = torch.randn(1, 2, 10, 1)
    found = latents_of(lambda x, t, w: torch.full_like(x, 2.0), noise=noise)
    assert torch.allclose(found, noise[0, ..., 0] + 2.0, atol=1e-6)


@pytest.mark.parametrize("method", ["euler", "midpoint", "heun", "dopri5"])
def test_a_long_sound_is_the_sound_of_one_long_window(method):
    """A velocity that looks at each token alone cannot tell where windows begin. Only where an overlap eases
    out is a token on neither window's path, but between them.
    """
    noise = torch.randn(1, 2, 33, 1, generator=torch.Generator().manual_seed(0))

    def velocity(x, t, w):
        return torch.sin(3 * x) - t

    joined = latents_of(velocity, 3.3, 5, noise=noise, method=method)
    one_window = replace(SEQUENCE, duration_s=3.3)
    whole = latents_of(velocity, 3.3, 1, noise=noise, method=method, sequence=one_window)
    easing = torch.zeros(33, dtype=torch.bool)
    for window in plan_windows(33, 10, 4)[1:]:
        held = (window.overlap + 1) // 2
        easing[window.start + held : window.start + window.overlap] = True
    assert 0 < easing.sum() < 12
    difference = (joined - whole).abs()
    assert difference[:, ~easing].max() < (1e-3 if method == "dopri5" else 1e-5)
    assert 1e-3 < difference[:, easing].max() < 0.3


def test_overlaps_keep_what_the_earlier_window_made_and_ease_out():
    noise = torch.zeros(1, 2, 16, 1)
    found = latents_of(lambda x, t, w: 0 * x + w, 1.6, 2, noise=noise)[0]
    # window 0 makes zeros in tokens 0..9, window 1 ones in 6..15; of the shared 6..9 two are held
    expected = torch.tensor([0.0] * 8 + [1 / 3, 2 / 3] + [1.0] * 6)
    assert torch.allclose(found, expected, atol=1e-6)


def test_a_held_token_moves_on_the_straight_path():
    """What the network sees of a held token at time t is t x_1 + (1 - t) x_0 of the earlier window."""
    noise = torch.randn(1, 2, 16, 1)
    seen = []

    def velocity(x, t, w):
        if w == 1:
            seen.append((float(t), x[0, :, 0, 0].clone()))
        return 2 * torch.ones_like(x)

    latents_of(velocity, 1.6, 2, noise=noise, num_steps=4)
    for t, x in seen:
        assert torch.allclose(x, noise[0, :, 6, 0] + 2 * t, atol=1e-6)
    assert len(seen) == 4


def test_blocks_come_while_later_windows_are_still_unread():
    taken = []

    def conditions():
        for w, item in enumerate(conditions_of_windows(9)):
            taken.append(w)
            yield item

    network = KnownNetwork(lambda x, t, w: torch.zeros_like(x))
    options = {"sequence": SEQUENCE, "duration_s": 5.8, "num_steps": 1, "overlap_s": 0.4}
    blocks = generate_blocks(network, ReadableCodec(), conditions(), **options)
    first = next(blocks)
    assert len(taken) <= 5 and first.shape[-1] < 100  # 16 frames of context for the codec are held back
    assert first.shape[-1] + sum(b.shape[-1] for b in blocks) == 232


@pytest.mark.parametrize("duration_s", [0.025, 0.3, 0.77, 1.0, 1.01, 2.6])
def test_length_is_right_to_the_sample(duration_s):
    windows = 9
    audio = generate(
        KnownNetwork(lambda x, t, w: torch.zeros_like(x)),
        ReadableCodec(),
        conditions_of_windows(windows),
        sequence=SEQUENCE,
        duration_s=duration_s,
        num_steps=1,
        overlap_s=0.4,
    )
    assert audio.shape == (1, 2, round(duration_s * 40)) and audio.dtype == torch.float32


def test_a_seed_names_a_sound_whatever_the_batch():
    def sound(generators, batch):
        return generate(
            KnownNetwork(lambda x, t, w: torch.zeros_like(x)),
            ReadableCodec(),
            conditions_of_windows(2, batch),
            sequence=SEQUENCE,
            duration_s=1.5,
            num_steps=1,
            overlap_s=0.4,
            generator=generators,
        )

    seeds = [torch.Generator().manual_seed(s) for s in (1, 2, 3)]
    together = sound(seeds, 3)
    alone = sound([torch.Generator().manual_seed(2)], 1)
    assert torch.equal(together[1], alone[0])
    assert torch.equal(sound(torch.Generator().manual_seed(2), 1)[0], alone[0])
    assert not torch.allclose(together[0], together[1])
    assert not torch.allclose(alone[0, 0], alone[0, 1])  # the ears' noise is independent


def test_shared_noise_is_one_noise_for_both_ears():
    found = latents_of(lambda x, t, w: torch.zeros_like(x), 1.6, 2, shared_noise=True)
    assert torch.equal(found[0], found[1]) and found.std() > 0.3


def test_what_does_not_fit_is_refused():
    still = KnownNetwork(lambda x, t, w: torch.zeros_like(x))
    with pytest.raises(ValueError, match=r"noise of shape \(B, 2, 10, 1\)"):
        generate(
            still,
            ReadableCodec(),
            conditions_of_windows(1),
            sequence=SEQUENCE,
            noise=torch.zeros(1, 2, 9, 1),
        )
    with pytest.raises(ValueError, match="2 windows, got 1"):
        generate(
            still,
            ReadableCodec(),
            conditions_of_windows(1),
            sequence=SEQUENCE,
            duration_s=1.5,
            overlap_s=0.4,
        )
    with pytest.raises(ValueError, match="euler"):
        SamplingConfig(method="eular")


def test_decoding_in_blocks_is_decoding_at_once():
    torch.manual_seed(0)
    config = SpectralCodecConfig(encoder_width=16, decoder_width=16)  # the depth, and so the reach, of tiny
    codec = SpectralCodec(config).eval()
    latents = torch.randn(1, 2, 140, config.latent_dim)
    whole = codec.decode_binaural(latents, 70000).detach()
    decoder = _BlockDecoder(codec, 2, 70000)
    blocks = []
    for start, end in ((0, 20), (20, 24), (24, 110), (110, 140)):
        blocks += decoder.push(to_tokens(latents[:, :, start:end], 2), end == 140)
    assert torch.allclose(torch.cat(blocks, dim=-1), whole, atol=1e-5 * float(whole.abs().max()))


# -------------------- with a real, tiny model


@pytest.fixture(scope="module")
def components():
    return micro_components()


def test_conditions_are_the_features_of_training(components, tmp_path):
    """The same clip by the training's feature extraction and by sampling: the same numbers."""
    from visaudio.data.features import Parts

    video = media.encode_video_bytes(moving_square(25, 56, 36), 25)  # small: decoded as it is
    (tmp_path / "v.mp4").write_bytes(video)
    media.write_audio(tmp_path / "a.flac", np.zeros((2, 44100)), 44100)
    row = {
        "schema_version": 1, "id": "a", "split": "train", "caption": "", "duration_s": 1.0, "hfov_deg": 90.0,
        "width": 56, "height": 36, "hrir_symmetric": True, "truth": {"rate_hz": 25.0, "sources": []},
        "video": {"bytes": video}, "audio": {"bytes": (tmp_path / "a.flac").read_bytes()},
    }  # fmt: skip
    parts = Parts(components.codec, components.clip, components.synchformer, components.preset.sequence)
    trained = parts.encode(row)
    (found,) = encode_conditions(components, tmp_path / "v.mp4")
    for name, value in (
        ("clip", found.clip_features),
        ("grid", found.spatial_features),
        ("sync", found.sync_features),
    ):
        assert torch.allclose(trained[name].float(), value[0], rtol=2e-3, atol=2e-3), name
        assert value.std() > 0.01


def test_an_empty_prompt_is_no_prompt_and_a_prompt_is_its_tokens(components):
    clip, sync = (
        torch.zeros(3, n, 3, 32, 32, dtype=torch.uint8)
        for n in (components.preset.sequence.num_clip_frames, components.preset.sequence.num_sync_frames)
    )
    found = encode_frames(components, clip, sync, ["a bell", "  ", None], hfov_deg=[60.0, 90.0, 110.0])
    assert found.present[:, 2].tolist() == [True, False, False]
    caption = "Visible sound: a bell, Invisible sound: none"
    assert torch.equal(found.text_features[0], components.clip.encode_text([caption])[0])
    assert torch.allclose(found.hfov_rad, torch.deg2rad(torch.tensor([60.0, 90.0, 110.0])))
    assert encode_frames(components, clip, sync).hfov_rad.isnan().all()


def test_the_last_frame_of_a_short_video_is_seen_and_held(components):
    frames = np.zeros((22, 32, 32, 3), np.uint8)
    other = frames.copy()
    other[-1] = 255
    a, b = (next(encode_conditions(components, f, fps=25)).sync_features for f in (frames, other))
    assert a.shape[1] == components.preset.sequence.with_duration(22 / 25).num_sync_tokens == 16
    assert (a[:, 8:] - b[:, 8:]).abs().max() > 1e-4  # frames 8 to 23 of 22: the last one twice more
    assert torch.equal(a[:, :8], b[:, :8])


def test_a_long_video_gives_conditions_per_window_with_its_own_frames(components, tmp_path):
    video = write_clip(tmp_path / "v.mp4", 2.2, width=56, height=36)
    whole = list(encode_conditions(components, video))
    assert len(whole) == 3
    frames = media.read_frames(video, np.arange(round(2.2 * 25)) / 25)
    from_frames = list(encode_conditions(components, frames, fps=25))
    for a, b in zip(whole, from_frames, strict=True):
        assert torch.allclose(a.sync_features, b.sync_features, atol=1e-6)
        assert torch.allclose(a.spatial_features, b.spatial_features, atol=1e-6)
    assert not torch.allclose(whole[0].sync_features, whole[1].sync_features, atol=1e-3)


def test_prompts_steer_only_as_far_as_guidance_says(components, tmp_path):
    video = write_clip(tmp_path / "v.mp4", 1.0)

    def sound(prompt=None, negative=None, scale=3.0, **options):
        conditions = encode_conditions(components, video, prompt=prompt, **options)
        negative_text = None if negative is None else components.clip.encode_text([negative])[0]
        return generate(
            components.network,
            components.codec,
            conditions,
            sequence=components.preset.sequence,
            num_steps=2,
            guidance_scale=scale,
            negative_text=negative_text,
            generator=torch.Generator().manual_seed(0),
        )

    plain = sound()
    assert torch.equal(plain, sound())
    assert not torch.allclose(plain, sound(prompt="bell"), atol=1e-5)
    assert not torch.allclose(plain, sound(negative="bell"), atol=1e-5)
    assert torch.equal(sound(scale=1.0), sound(scale=1.0, negative="bell"))
    assert not torch.allclose(plain, sound(mask_away_clip=True), atol=1e-5)
    assert not torch.allclose(plain, sound(hfov_deg=60.0), atol=1e-6)


@pytest.mark.parametrize(
    ("video", "options", "message"),
    [
        (np.zeros((2, 4, 4, 3), np.float32), {"fps": 25}, "uint8"),
        (np.zeros((2, 4, 4, 3), np.uint8), {}, "fps"),
        (np.zeros((0, 4, 4, 3), np.uint8), {"fps": 25}, "frames"),
        ("missing.mp4", {}, "no such file"),
        (np.zeros((2, 4, 4, 3), np.uint8), {"fps": 25, "duration_s": float("nan")}, "positive"),
    ],
)
def test_bad_input_is_named(components, video, options, message):
    with pytest.raises(UserError, match=message):
        list(encode_conditions(components, video, **options))


def test_a_bare_prompt_is_put_into_the_captions_form():
    from bi_audio_dataset.captions import compose
    from visaudio.sampling import as_caption

    assert as_caption(" a brass  bell ringing ") == compose(["a brass bell ringing"], [])
    full = compose(["a drum"], ["rain"])
    assert as_caption(full) == full
