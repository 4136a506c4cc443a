"""Several sources as one stream: shares, passes, resume, mono."""

import numpy as np
import pytest
import torch
from fakes import FakeNetwork, FakeSamples

from bi_audio_dataset.schema import UserError
from visaudio.training.batches import BatchStream, DropoutConfig, draw
from visaudio.training.flow_stage import TokenSamples, latent_stats
from visaudio.training.loop import FlowLoopConfig, train
from visaudio.training.mixture import MixedPositions, MixedSamples, Part, check_ears, held_out_of, places_of

NONE = DropoutConfig(visual=0, clip=0, sync=0, spatial=0, text=0, hfov=0)


def mono_samples(count: int) -> FakeSamples:
    samples = FakeSamples(count)
    for row in samples.rows:
        row["latents"] = row["latents"][:1].repeat(2, 1, 1)
    return samples


def mixed(weights=(3.0, 1.0), counts=(8, 16)) -> MixedSamples:
    return MixedSamples(
        [
            Part("biaudio", FakeSamples(counts[0]), weights[0]),
            Part("films", mono_samples(counts[1]), weights[1], mono=True),
        ]
    )


@pytest.mark.parametrize(
    ("weights", "count", "places"),
    [
        ((3, 1), 24, [18, 6]),
        ((1, 1, 1), 10, [4, 3, 3]),
        ((1, 1e-9), 10, [9, 1]),
        ((1e-9, 1e-9, 1), 3, [1, 1, 1]),
    ],
)
def test_places_are_shared_out_by_weight(weights, count, places):
    assert places_of(weights, count) == places


def test_an_epoch_holds_each_sources_share_exactly_whatever_its_size():
    samples = mixed()
    positions = samples.positions(seed=0)
    for epoch in range(3):
        chosen = [samples.ids[positions[24 * epoch + i][1]] for i in range(24)]
        assert sum(name.startswith("biaudio/") for name in chosen) == 18
    # not in blocks: the source of a place is drawn
    assert len({name.split("/")[0] for name in chosen[:12]}) == 2


def test_each_source_shows_every_clip_once_before_any_comes_again():
    samples = mixed()
    positions = samples.positions(seed=4)
    seen = {"biaudio": [], "films": []}
    for place in range(24 * 8):
        number, index = positions[place]
        seen[samples.ids[index].split("/")[0]].append((number, index))
    for source, count in (("biaudio", 8), ("films", 16)):
        shown = seen[source]
        assert len(set(shown)) == len(shown)  # so no clip gets the same draws twice
        passes = [[index for number, index in shown if number == one] for one in range(len(shown) // count)]
        assert all(sorted(one) == sorted(set(one)) and len(one) == count for one in passes)
        assert [number for number, _ in shown] == sorted(number for number, _ in shown)
        assert passes[0] != passes[1]


def test_any_place_can_be_had_first_and_the_seed_counts():
    straight, jumped = mixed().positions(seed=1), mixed().positions(seed=1)
    everything = [straight[i] for i in range(100)]
    assert [jumped[i] for i in (77, 3, 99, 24, 23)] == [everything[i] for i in (77, 3, 99, 24, 23)]
    other = mixed().positions(seed=2)
    assert everything != [other[i] for i in range(100)]


def test_two_processes_see_what_one_does_and_a_clip_repeated_in_an_epoch_has_new_noise():
    settings = {"seed": 5, "batch_size": 8, "dropout": DropoutConfig()}
    for step in (0, 2, 7):
        whole = BatchStream(mixed(), **settings).get(step)
        parts = [BatchStream(mixed(), **settings, rank=rank, world=2).get(step) for rank in (0, 1)]
        assert sum((part.ids for part in parts), ()) == whole.ids
        assert torch.equal(torch.cat([part.noise for part in parts]), whole.noise)
    epoch = [BatchStream(mixed(), **settings).get(step) for step in range(3)]
    ids = sum((batch.ids for batch in epoch), ())
    noise = torch.cat([batch.noise for batch in epoch])
    twice = next(name for name in ids if ids.count(name) > 1)
    first, second = [noise[i] for i, name in enumerate(ids) if name == twice][:2]
    assert not torch.equal(first, second)
    assert torch.equal(first, torch.from_numpy(draw(5, 0, twice, (2, 6, 4), DropoutConfig()).noise))


def test_mono_clips_come_without_place_and_may_be_mirrored():
    samples = mixed()
    samples.parts[1].samples.hrir_symmetric = [False] * 16
    samples = MixedSamples(samples.parts)  # equal ears are their own mirror image
    batches = [BatchStream(samples, 0, 12, NONE, mirror_probability=1.0).get(step) for step in (0, 1)]
    for batch in batches:
        for place, name in enumerate(batch.ids):
            mono = name.startswith("films/")
            clip, sync, text, spatial = batch.conditions.presence()[place].tolist()
            assert clip and sync and text and spatial is not mono
            assert bool(batch.conditions.hfov_rad[place].isnan()) is mono
            row = samples.parts[mono].samples.rows[int(name[-3:])]
            assert torch.equal(batch.conditions.sync_features[place], -row["sync"])  # of the flipped frames
            assert torch.equal(batch.latents[place], row["latents"].flip(0))


def test_statistics_are_those_of_the_binaural_clips():
    both, alone = TokenSamples(mixed(), 2), TokenSamples(FakeSamples(8), 2)
    for ours, theirs in zip(latent_stats(both), latent_stats(alone), strict=True):
        assert torch.equal(ours, theirs)


def test_what_is_declared_must_be_what_the_clips_hold():
    check_ears(Part("a", FakeSamples(4)))
    check_ears(Part("a", mono_samples(4), mono=True))
    with pytest.raises(UserError, match="source a: is declared mono, but its features hold two different"):
        check_ears(Part("a", FakeSamples(4), mono=True))
    with pytest.raises(UserError, match="source a: both ears of its clips are one.*declare it mono: true"):
        check_ears(Part("a", mono_samples(4)))


def test_validation_hears_the_binaural_sources_all_from_the_start():
    parts = [Part("a", FakeSamples(3)), Part("mono", mono_samples(9), mono=True), Part("b", FakeSamples(2))]
    held_out = held_out_of(parts)
    assert [name.split("/")[0] for name in held_out.ids] == ["a", "b", "a", "b", "a"]
    assert held_out.get(1, mirror=False)["id"] == "clip000"
    assert held_out_of([Part("none", FakeSamples(0))]) is None
    assert len(held_out_of(parts[1:2]).ids) == 9


def test_a_source_without_clips_and_two_of_one_name_are_refused():
    with pytest.raises(UserError, match="source b: holds no clips"):
        MixedSamples([Part("a", FakeSamples(2)), Part("b", FakeSamples(0))])
    with pytest.raises(UserError, match="two sources have one name"):
        MixedSamples([Part("a", FakeSamples(2)), Part("a", FakeSamples(2))])


def test_a_run_goes_on_with_the_same_mixture_or_not_at_all(tmp_path):
    settings = {"batch_size": 4, "precision": "fp32", "validate_every": 0, "log_every": 1}
    weights = []
    for name, steps in (("straight", [6]), ("resumed", [3, 6])):
        for end in steps:
            torch.manual_seed(0)
            network = FakeNetwork()
            config = FlowLoopConfig(steps=6, **settings)
            stop = _Stopping(mixed(), 4 * 3 + 2) if end < 6 else mixed()
            train(network, stop, config, tmp_path / name)
        weights.append(network.state_dict())
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    with pytest.raises(UserError, match="training clips"):
        train(FakeNetwork(), mixed((1.0, 1.0)), FlowLoopConfig(steps=9, **settings), tmp_path / "straight")


class _Stopping:
    """Asks for a stop, as a signal would, at the n-th reading."""

    def __init__(self, samples: MixedSamples, reads: int):
        self._samples, self.left = samples, reads

    def __getattr__(self, name):
        return getattr(self._samples, name)

    def get(self, index, mirror):
        import os
        import signal

        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return self._samples.get(index, mirror)


def test_a_stream_of_one_source_and_many_epochs_is_even():
    positions = MixedPositions(["a"], [range(5)], [1.0], seed=0)
    counts = np.bincount([positions[i][1] for i in range(5 * 40)])
    assert counts.tolist() == [40] * 5
