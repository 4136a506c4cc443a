import math

import numpy as np
import pytest
import torch
from fakes import FakeSamples

from bi_audio_dataset.schema import UserError
from visaudio.training.batches import BatchStream, DropoutConfig, Positions, draw

NONE = DropoutConfig(visual=0, clip=0, sync=0, spatial=0, text=0, hfov=0)


def _equal(a, b) -> bool:
    pairs = [(a.latents, b.latents), (a.noise, b.noise), (a.t, b.t)]
    pairs += [(a.conditions.sync_features, b.conditions.sync_features)]
    pairs += [(a.conditions.presence(), b.conditions.presence())]
    return a.ids == b.ids and all(torch.equal(x, y) for x, y in pairs)


def test_every_epoch_is_a_permutation_and_epochs_differ():
    positions = Positions(50, seed=3)
    epochs = [[positions[50 * epoch + i] for i in range(50)] for epoch in (0, 1)]
    for epoch, chosen in enumerate(epochs):
        assert {e for e, _ in chosen} == {epoch}
        assert sorted(index for _, index in chosen) == list(range(50))
    assert [i for _, i in epochs[0]] != [i for _, i in epochs[1]]
    assert [i for _, i in epochs[0]] != [Positions(50, seed=4)[i][1] for i in range(50)]


def test_a_batch_may_span_two_epochs_and_loses_nothing():
    stream = BatchStream(FakeSamples(12), seed=0, batch_size=8, dropout=NONE)
    ids = [name for step in range(3) for name in stream.get(step).ids]
    assert sorted(ids) == sorted(2 * FakeSamples(12).ids)


def test_two_processes_and_two_rounds_see_what_one_process_sees():
    settings = {"seed": 5, "batch_size": 8, "dropout": DropoutConfig()}
    whole = BatchStream(FakeSamples(), **settings).get(2)
    parts = [
        BatchStream(FakeSamples(), **settings, rank=rank, world=2, accumulation=2).get(2, round_)
        for round_ in (0, 1)
        for rank in (0, 1)
    ]
    assert sum((part.ids for part in parts), ()) == whole.ids
    assert torch.equal(torch.cat([part.noise for part in parts]), whole.noise)
    assert torch.equal(torch.cat([part.t for part in parts]), whole.t)
    presence = torch.cat([part.conditions.presence() for part in parts])
    assert torch.equal(presence, whole.conditions.presence())


def test_what_is_drawn_for_a_clip_depends_on_seed_epoch_and_clip_alone():
    """Not on the batch's size, the clip's place, the process, the round, the step, or the other clips."""
    settings = DropoutConfig()
    alone = draw(5, 1, "clip007", (2, 6, 4), settings)
    seen = []
    for batch_size, world, rounds in ((12, 1, 1), (12, 2, 2), (4, 2, 1), (3, 1, 3)):
        for rank in range(world):
            batches = BatchStream(
                FakeSamples(), 5, batch_size, settings, rank=rank, world=world, accumulation=rounds
            )
            for step in range(12 // batch_size, 24 // batch_size):  # the steps of epoch 1
                for round_ in range(rounds):
                    batch = batches.get(step, round_)
                    if "clip007" in batch.ids:
                        seen.append((batch, batch.ids.index("clip007")))
    assert len(seen) == 4
    fewer = FakeSamples()
    keep = [3, 7, 9]
    fewer.ids, fewer.rows = [fewer.ids[i] for i in keep], [fewer.rows[i] for i in keep]
    seen.append((BatchStream(fewer, 5, 3, settings).make([(1, 1)]), 0))
    plain = torch.stack([torch.as_tensor(x) for x in FakeSamples().rows[7]["latents"]])
    for batch, place in seen:
        assert torch.equal(batch.noise[place], torch.from_numpy(alone.noise))
        assert torch.equal(batch.t[place], torch.sigmoid(torch.tensor(alone.t_normal)))
        assert torch.equal(batch.latents[place], plain.flip(0) if alone.mirror else plain)
        dropped = [alone.dropped[name] for name in ("clip", "sync", "text", "spatial")]
        assert batch.conditions.presence()[place].tolist() == [not gone for gone in dropped]
        assert bool(batch.conditions.hfov_rad[place].isnan()) == alone.dropped["hfov"]
    others = [draw(6, 1, "clip007", (2, 6, 4), settings), draw(5, 2, "clip007", (2, 6, 4), settings)]
    others += [draw(5, 1, "clip008", (2, 6, 4), settings)]
    assert not any(np.array_equal(one.noise, alone.noise) for one in others)


def test_any_step_can_be_had_first():
    straight = BatchStream(FakeSamples(), seed=1, batch_size=4, dropout=DropoutConfig())
    for step in range(7):
        expected = straight.get(step)
    resumed = BatchStream(FakeSamples(), seed=1, batch_size=4, dropout=DropoutConfig()).get(6)
    assert _equal(resumed, expected)


def test_mirror_swaps_the_ears_and_takes_the_flipped_features():
    samples = FakeSamples()
    mirrored = BatchStream(samples, 0, 12, NONE, mirror_probability=1.0).get(0)
    plain = BatchStream(samples, 0, 12, NONE, mirror_probability=0.0).get(0)
    assert torch.equal(mirrored.latents, plain.latents.flip(1))
    assert torch.equal(mirrored.conditions.sync_features, -plain.conditions.sync_features)
    assert torch.equal(mirrored.noise, plain.noise)  # the draws do not depend on each other's settings


def test_a_clip_of_unequal_ears_is_never_mirrored():
    samples = FakeSamples()
    plain = BatchStream(samples, 0, 12, NONE, mirror_probability=0.0).get(0)
    samples.hrir_symmetric = [index % 2 == 0 for index in range(len(samples.ids))]
    batch = BatchStream(samples, 0, 12, NONE, mirror_probability=1.0).get(0)
    for place, name in enumerate(batch.ids):
        same = torch.equal(batch.latents[place], plain.latents[place])
        assert same == (samples.ids.index(name) % 2 == 1)


def test_draws_have_the_stated_laws():
    dropout = DropoutConfig(visual=0.1, clip=0.05, sync=0.05, spatial=0.05, text=0.5, hfov=0.5)
    draws = [draw(0, 0, f"clip{i}", (2, 4, 2), dropout) for i in range(4000)]

    def share(test):
        return np.mean([test(one) for one in draws])

    assert share(lambda d: d.mirror) == pytest.approx(0.5, abs=0.03)
    assert share(lambda d: d.dropped["clip"]) == pytest.approx(1 - 0.9 * 0.95, abs=0.02)
    assert share(lambda d: d.dropped["clip"] and d.dropped["sync"] and d.dropped["spatial"]) == pytest.approx(
        0.1, abs=0.015
    )
    assert share(lambda d: d.dropped["text"]) == pytest.approx(0.5, abs=0.03)
    noise = np.stack([d.noise for d in draws])
    assert noise.std() == pytest.approx(1.0, abs=0.01)
    assert abs(np.corrcoef(noise[:, 0].ravel(), noise[:, 1].ravel())[0, 1]) < 0.03  # ears independent


def test_timesteps_are_logit_normal():
    samples = FakeSamples(400)
    t = BatchStream(samples, 0, 400, NONE, t_mean=0.5, t_scale=2.0).get(0).t
    logits = torch.log(t / (1 - t))
    assert logits.mean().item() == pytest.approx(0.5, abs=0.3)
    assert logits.std().item() == pytest.approx(2.0, abs=0.2)


def test_dropped_lens_is_unknown():
    lens = BatchStream(FakeSamples(), 0, 12, DropoutConfig(hfov=1.0)).get(0).conditions.hfov_rad
    assert lens.isnan().all()
    known = BatchStream(FakeSamples(), 0, 12, NONE).get(0)
    assert known.conditions.hfov_rad.tolist() == pytest.approx(
        [math.radians(60 + int(name[-3:])) for name in known.ids]
    )


def test_a_batch_that_cannot_be_shared_out_is_refused():
    with pytest.raises(UserError, match="batch_size 9 does not divide by 2 processes x 1"):
        BatchStream(FakeSamples(), 0, 9, NONE, world=2)


def test_no_samples_is_a_user_error():
    with pytest.raises(UserError, match="no samples"):
        Positions(0, seed=0)
