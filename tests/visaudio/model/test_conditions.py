import pytest
import torch

from visaudio.model.conditions import MODALITIES, Conditions, PreparedConditions, random_masks


def make(batch: int, fill: float = 1.0) -> Conditions:
    def full(*shape):
        return torch.full((batch, *shape), fill)

    return Conditions(full(4, 3), full(8, 2), full(5, 6), full(4, 16, 7), full())


def test_drop_marks_only_the_samples_of_the_mask():
    original = make(3)
    dropped = original.drop(
        {"clip": torch.tensor([True, False, False]), "text": torch.tensor([True, True, False])}
    )
    expected = [[False, True, False, True], [True, True, False, True], [True, True, True, True]]
    assert dropped.presence().tolist() == expected
    assert original.present is None  # no mutation
    again = dropped.drop({"sync": torch.tensor([False, False, True])})
    assert again.presence()[2].tolist() == [True, False, True, True]
    assert dropped.presence()[2].tolist() == [True] * 4


def test_concat_index_and_expand():
    joined = Conditions.concat([make(2, 1.0), make(1, 2.0).drop({"clip": torch.ones(1, dtype=torch.bool)})])
    assert joined.clip_features[:, 0, 0].tolist() == [1.0, 1.0, 2.0]
    assert joined.presence()[:, 0].tolist() == [True, True, False]
    last = joined.index(slice(2, 3))
    assert last.batch_size == 1 and last.expand(4).hfov_rad.tolist() == [2.0] * 4
    picked = joined.index(torch.tensor([2, 0]))
    assert picked.hfov_rad.tolist() == [2.0, 1.0] and picked.presence()[:, 0].tolist() == [False, True]


def test_to_keeps_flags_boolean():
    moved = make(1).drop({}).to(torch.bfloat16)
    assert moved.clip_features.dtype == torch.bfloat16 and moved.present.dtype == torch.bool


def test_prepared_conditions_with_and_without_space_do_not_mix():
    def prepared(spatial):
        return PreparedConditions(*(torch.zeros(1, 2, 3) for _ in range(3)), torch.zeros(1, 3), spatial)

    assert PreparedConditions.concat([prepared(None), prepared(None)]).spatial is None
    with pytest.raises(ValueError, match="spatial is missing"):
        PreparedConditions.concat([prepared(None), prepared(torch.zeros(1, 2, 2, 3))])


def test_dropout_is_per_sample_and_per_modality():
    masks = random_masks(4000, 0.1, torch.Generator().manual_seed(0))
    assert tuple(masks) == MODALITIES
    for mask in masks.values():
        assert abs(mask.float().mean().item() - 0.1) < 0.02
    both = (masks["clip"] & masks["sync"]).float().mean().item()
    assert abs(both - 0.01) < 0.006  # independent
    uneven = random_masks(50, {"clip": 1.0, "text": 0.0})
    assert uneven["clip"].all() and not uneven["text"].any() and "sync" not in uneven


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="'video'.*clip, sync, text, spatial"):
        make(1).drop({"video": torch.ones(1, dtype=torch.bool)})
