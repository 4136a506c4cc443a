"""DeSync's plumbing against flashes and clicks that are a known time apart; weights that are not there."""

import numpy as np
import pytest
import torch
from torch import nn

from bi_audio_dataset.media import write_video
from bi_audio_dataset.schema import UserError
from visaudio.encoders.synchformer import SynchformerConfig
from visaudio.encoders.synchformer_audio import SEGMENT_SAMPLES, SynchformerAudioConfig, segments
from visaudio.encoders.synchformer_sync import (
    SyncHeadConfig,
    Synchformer,
    SynchformerFullConfig,
    offset_classes_s,
)
from visaudio.evaluation import desync, measures
from visaudio.evaluation.desync import Desync
from visaudio.evaluation.measures import ClipSet, Scene, Settings, Sound, Unavailable

FPS, RATE, SECONDS = 25, 44100, 8.0
EVENTS_S = (0.4, 1.1, 1.5, 2.3, 3.1, 3.3, 4.6, 5.0, 5.9, 6.4, 7.0, 7.5)


class Correlator(Synchformer):
    """Stands where the network stands: brightness and loudness of each 0.04 s, and at which class's shift
    they agree best. Segments, their order and the classes are as the network's."""

    def __init__(self):
        nn.Module.__init__(self)
        self.config = SynchformerFullConfig(SynchformerConfig(image_size=16, patch_size=8, width=24, heads=4))
        self.calls = 0

    def visual_features(self, frames):
        self.calls += 1
        assert frames.min() >= -1 and frames.max() <= 1 and frames.shape[-2:] == (16, 16)
        bright = (frames.mean(dim=(2, 3, 4)) > 0.5).float()
        return bright.unfold(1, 16, 8)[..., None]

    def audio_features(self, audio):
        loud = segments(audio).unflatten(-1, (16, SEGMENT_SAMPLES // 16)).square().mean(-1).sqrt()
        return loud[..., None]

    def offset_logits(self, visual, audible):
        assert visual.shape[1] == audible.shape[1] == 14
        seen, heard = (torch.cat([x[:, 0], x[:, 1:, 8:].flatten(1, 2)], 1)[..., 0] for x in (visual, audible))
        logits = []
        for offset in offset_classes_s():
            early = round(float(offset) * FPS)
            # heard[t] is seen[t + early]
            moved = torch.roll(seen, -early, dims=1)
            logits.append((moved * heard).sum(1))
        return torch.stack(logits, dim=1)


@pytest.fixture(scope="module")
def flashes(tmp_path_factory):
    """A film whose middle square is white for 0.04 s at each event; what lies beside it, and is cropped off,
    never is: with it the picture would be half as bright."""
    frames = np.zeros((round(SECONDS * FPS), 32, 64, 3), np.uint8)
    for event in EVENTS_S:
        frames[round(event * FPS), :, 16:48] = 255
    path = tmp_path_factory.mktemp("film") / "flashes.mp4"
    write_video(path, list(frames), FPS)
    return path


def clicks(early_s: float, seconds: float = SECONDS, ear: int | None = None) -> Sound:
    """Noise of 0.04 s at each event, `early_s` ahead of it; in both ears or one."""
    rng = np.random.default_rng(0)
    audio = np.zeros((2, round(seconds * RATE)), np.float32)
    for event in EVENTS_S:
        begin = round((event - early_s) * RATE)
        length = round(0.04 * RATE)
        if 0 <= begin < audio.shape[1] - length:
            audio[:, begin : begin + length] = 0.3 * rng.standard_normal(length)
    if ear is not None:
        audio[1 - ear] = 0
    return Sound(audio, RATE)


@pytest.mark.parametrize("early_s", [0.0, 0.4, -0.4, 1.2, -2.0])
def test_the_offset_of_clicks_and_flashes_is_found_with_its_sign(flashes, early_s):
    scene = Scene("a", SECONDS, video=flashes)
    heard = Desync(Correlator(), "0" * 64).hear(clicks(early_s), scene)
    assert heard["offset_s"].shape == (3, 2)
    assert np.allclose(heard["offset_s"], early_s, atol=1e-9)


def test_rows_average_both_ends_and_both_ears(flashes):
    measure = Desync(Correlator(), "0" * 64)
    scene = Scene("a", SECONDS, video=flashes)
    offsets = np.array([[0.4, -0.2], [1.0, 1.0], [-0.2, 0.0]])
    row = measure.compare({"offset_s": offsets}, {"offset_s": -offsets[::-1]}, scene)
    expected = {"desync": 0.3, "desync_ears": 0.55, "desync_offset": 0.1, "desync_reference": 0.1}
    assert row == pytest.approx(expected)
    assert np.isnan(measure.compare({"offset_s": offsets}, None, scene)["desync_reference"])
    clips = ClipSet(("a", "b"), {name: np.array([value, np.nan]) for name, value in row.items()})
    assert measure.summarise(clips, np.array([0, 1, 1])) == pytest.approx(expected)


def test_each_ear_is_heard_by_itself(flashes):
    """Clicks of the left ear alone, 0.4 s early; of the right, 0.2 s late; the mix is ambiguous."""
    left, right = clicks(0.4, ear=0), clicks(-0.2, ear=1)
    sound = Sound(left.audio + right.audio, RATE)
    heard = Desync(Correlator(), "0" * 64).hear(sound, Scene("a", SECONDS, video=flashes))
    assert np.allclose(heard["offset_s"][1:], [[0.4, 0.4], [-0.2, -0.2]])


def test_the_last_segments_are_the_last(flashes):
    """Sound that falls 0.6 s behind at 4 s: in step over the first 4.8 s, behind over the last."""
    audio = clicks(0.0).audio.copy()
    late = clicks(-0.6).audio
    audio[:, round(4.0 * RATE) :] = late[:, round(4.0 * RATE) :]
    heard = Desync(Correlator(), "0" * 64).hear(Sound(audio, RATE), Scene("a", SECONDS, video=flashes))
    assert heard["offset_s"][0, 1] == pytest.approx(-0.6)
    assert heard["offset_s"][0, 0] == pytest.approx(0.0)


def test_the_picture_is_seen_once_for_all_sounds_of_a_clip(flashes):
    model = Correlator()
    measure = Desync(model, "0" * 64)
    scene = Scene("a", SECONDS, video=flashes)
    for early_s in (0.0, 0.2, 0.4):
        measure.hear(clicks(early_s), scene)
    assert model.calls == 1
    measure.hear(clicks(0.0, 6.0), Scene("a", 6.0, video=flashes))
    assert model.calls == 2


def test_a_picture_that_was_written_anew_is_seen_anew(flashes, tmp_path):
    measure, film = Desync(Correlator(), "0" * 64), tmp_path / "film.mp4"
    film.write_bytes(flashes.read_bytes())
    scene = Scene("a", SECONDS, video=film)
    assert np.allclose(measure.hear(clicks(0.2), scene)["offset_s"], 0.2)
    late = np.zeros((round(SECONDS * FPS), 32, 64, 3), np.uint8)
    for event in EVENTS_S:
        late[min(len(late) - 1, round((event + 0.4) * FPS))] = 255
    write_video(film, list(late), FPS)
    assert np.allclose(measure.hear(clicks(0.2), scene)["offset_s"], 0.6)


def test_short_clips_are_refused_with_their_length(flashes):
    measure = Desync(Correlator(), "0" * 64)
    heard = measure.hear(clicks(0.0, 4.8), Scene("a", 4.8, video=flashes))
    assert np.allclose(heard["offset_s"], 0)
    with pytest.raises(
        UserError, match=r"4\.76 s of sound and picture, DeSync compares 14 segments, 4\.80 s"
    ):
        measure.hear(clicks(0.0, 4.79), Scene("a", 4.79, video=flashes))
    # a sound that is longer than the film: the film's length counts, but for three frames
    assert measure._common_frames(Scene("a", 8.12, video=flashes)) == 203
    assert measure._common_frames(Scene("a", 9.0, video=flashes)) == 200


def test_a_sound_of_one_channel_is_heard_once(flashes, monkeypatch):
    measure = Desync(Correlator(), "0" * 64)
    signals = []
    audio_features = measure.model.audio_features
    monkeypatch.setattr(
        measure.model, "audio_features", lambda audio: signals.append(len(audio)) or audio_features(audio)
    )
    measure.hear(clicks(0.2), Scene("a", SECONDS, video=flashes))
    measure.hear(clicks(0.2, ear=0), Scene("a", SECONDS, video=flashes))
    assert signals == [1, 3]


def test_a_real_reduced_network_gives_one_of_its_classes(flashes):
    torch.manual_seed(0)
    config = SynchformerFullConfig(
        SynchformerConfig(image_size=16, patch_size=8, width=24, depth=1, heads=4),
        SynchformerAudioConfig(width=16, depth=1, heads=2),
        SyncHeadConfig(width=16, depth=1, heads=2),
    )
    measure = Desync(Synchformer(config).eval(), "a1b2" * 16)
    heard = measure.hear(clicks(0.0), Scene("a", SECONDS, video=flashes))
    steps = heard["offset_s"] / 0.2
    assert np.allclose(steps, np.round(steps)) and np.abs(heard["offset_s"]).max() <= 2
    assert measure.key == "desync-1-a1b2a1b2a1b2"


def test_without_weights_it_is_unavailable_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(desync, "WEIGHTS", "nobody/nothing:synchformer_state_dict.pth")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        Unavailable, match="weights of the whole Synchformer, nobody/nothing.*synchformer"
    ) as e:
        measures.make("desync", Settings())
    assert "\n" not in str(e.value)
    with pytest.raises(UserError, match="no weights of the whole Synchformer at .*mine.pth") as error:
        measures.make("desync", Settings({"synchformer": str(tmp_path / "mine.pth")}))
    assert not isinstance(error.value, Unavailable)


def test_weights_of_something_else_are_no_synchformer(tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="not the weights of the whole Synchformer.*513, 1, 0 in all"):
        measures.make("desync", Settings({"synchformer": str(tmp_path / "other.pth")}))
