import numpy as np
import pytest

from bi_audio_dataset.schema import UserError
from bi_audio_dataset.splits import split_of, split_of_group


def test_shares_come_out_as_asked():
    splits = [split_of(f"recording-{i}", (0.8, 0.05, 0.15)) for i in range(4000)]
    shares = [np.mean([s == name for s in splits]) for name in ("train", "validation", "test")]
    np.testing.assert_allclose(shares, (0.8, 0.05, 0.15), atol=0.02)


def test_known_ids_never_move():
    # a change of the hash would leak test recordings of published datasets into training
    found = [split_of(f"recording-{i}", (0.4, 0.3, 0.3)) for i in range(8)]
    assert found == ["test", "test", "validation", "test", "validation", "train", "train", "train"]


def test_larger_training_share_only_adds_to_training():
    ids = [f"r{i}" for i in range(500)]
    small = {i for i in ids if split_of(i, (0.5, 0.25, 0.25)) == "train"}
    large = {i for i in ids if split_of(i, (0.7, 0.15, 0.15)) == "train"}
    assert small < large


def test_empty_split_takes_nothing():
    assert {split_of(f"r{i}", (0.5, 0.0, 0.5)) for i in range(200)} == {"train", "test"}


@pytest.mark.parametrize("fractions", [(0.5, 0.5, 0.5), (1.2, -0.1, -0.1), (0.5, 0.5)])
def test_refuses_fractions_that_are_no_partition(fractions):
    with pytest.raises(UserError, match="sum 1"):
        split_of("x", fractions)


def test_a_group_goes_to_its_most_protected_split():
    assert split_of_group(["train", "test", "validation"]) == "test"
    assert split_of_group(["train", "validation"]) == "validation"
    assert split_of_group(["train", "train"]) == "train"
    with pytest.raises(ValueError, match="got"):
        split_of_group([])
