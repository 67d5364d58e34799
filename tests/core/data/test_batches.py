"""Batches by number, and views of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.data.augment import Crop, Flip
from core.data.batches import Batches
from core.data.rows import Rows
from core.errors import Refused
from tests.core.toys import DOMAIN

IMAGES = np.random.default_rng(0).integers(0, 256, (23, 5, 6, 3), np.uint8)


def rows(n: int = 23, classes: int = 3, only: Sequence[int] | None = None) -> Rows:
    whole = Rows.whole(IMAGES[:n], np.arange(n) % 3, first=100, classes=classes, domain=DOMAIN)
    return whole if only is None else whole.only(np.array(only))


def batches(n: int = 23, size: int = 8, **options: Any) -> Batches:
    return Batches(rows(n), size, seed=3, **options)


@given(n=st.integers(1, 23), size=st.integers(1, 30), accumulate=st.integers(1, 3))
def test_an_epoch_is_one_pass_and_no_batch_is_a_single_sample(n: int, size: int, accumulate: int) -> None:
    data = Batches(rows(n), size, seed=0, accumulate=accumulate)
    sizes = [len(data(0, i).y) for i in range(data.steps)]
    seen = torch.cat([data(0, i).index for i in range(data.steps)])
    assert sorted(seen.tolist()) == list(range(100, 100 + n))
    assert all(count == size * accumulate for count in sizes[:-1])
    assert sizes[-1] <= size * accumulate + 1
    if n > 1 and size * accumulate > 1:
        assert min(sizes) > 1


def test_a_batch_is_a_function_of_seed_epoch_and_number() -> None:
    data = batches(augmentation=(Crop(padding=1), Flip()))
    late = data(7, 2)
    data(0, 0)
    for other in (data(7, 2), batches(augmentation=(Crop(padding=1), Flip()))(7, 2)):
        assert torch.equal(other.x, late.x)
        assert torch.equal(other.index, late.index)
    assert not torch.equal(data(8, 2).index, late.index)
    assert not torch.equal(Batches(rows(), 8, seed=4)(7, 2).index, late.index)


def test_without_reshuffling_every_epoch_has_the_order_of_the_first() -> None:
    fixed, data = batches(reshuffle=False), batches()
    first, fourth = (torch.cat([fixed(epoch, i).index for i in range(fixed.steps)]).tolist() for epoch in (0, 3))
    assert first == fourth == torch.cat([data(0, i).index for i in range(data.steps)]).tolist()
    assert first != sorted(first)


def test_samples_come_with_their_labels_and_rows_in_data_range() -> None:
    batch = batches()(0, 1)
    assert batch.x.shape == (8, 3, 5, 6)
    assert batch.x.is_contiguous(memory_format=torch.channels_last)
    for x, y, index in zip(batch.x, batch.y, batch.index, strict=True):
        place = int(index) - 100
        assert int(y) == place % 3
        assert torch.equal(x, torch.from_numpy(IMAGES[place]).permute(2, 0, 1).float() / 255)


def test_a_part_of_a_split_keeps_the_numbers_of_the_dataset() -> None:
    data = Batches(rows(only=[2, 5, 11, 20]), 2, seed=0)
    assert sorted(torch.cat([data(0, 0).index, data(0, 1).index]).tolist()) == [102, 105, 111, 120]


def test_vectors_stay_as_they_are_and_refuse_augmentation() -> None:
    x = np.random.default_rng(0).normal(size=(4, 7)).astype(np.float32)
    vectors = Rows.whole(x, np.array([0, 1, 0, 1]), classes=2, domain=DOMAIN)
    batch = Batches(vectors, 4, seed=0)(0, 0)
    assert torch.equal(batch.x, torch.from_numpy(x)[batch.index])
    with pytest.raises(Refused, match="vectors") as refused:
        Batches(vectors, 4, seed=0, augmentation=(Flip(),))
    assert refused.value.where == "/recipe/augmentation"


def test_classes_are_marked_only_where_some_are_missing() -> None:
    assert batches().classes is None
    missing = Batches(rows(classes=5, only=[0, 3, 1]), 2, seed=0).classes
    assert missing is not None
    assert missing.tolist() == [True, True, False, False, False]


def test_views_repeat_after_as_many_epochs_and_do_not_depend_on_the_seed() -> None:
    def view(epoch: int, seed: int = 0, **options: Any) -> dict[int, Any]:
        data = Batches(rows(), 23, seed=seed, augmentation=(Crop(padding=2), Flip()), **options)
        batch = data(epoch, 0)
        return {int(row): x.tolist() for row, x in zip(batch.index, batch.x, strict=True)}

    assert view(1, views=3) == view(4, views=3) == view(1) == view(1, seed=9)
    assert view(1) != view(2)
    assert view(1) != view(1, view_seed=1)


def test_a_batch_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(IndexError):
        batches()(0, 3)


def test_reading_in_order_gives_every_row_once() -> None:
    read = list(rows(only=[1, 4, 9, 16, 20]).batches(2))
    assert [len(batch.y) for batch in read] == [2, 2, 1]
    assert torch.cat([batch.index for batch in read]).tolist() == [101, 104, 109, 116, 120]
    assert torch.equal(read[1].x[0], torch.from_numpy(IMAGES[9]).permute(2, 0, 1) / 255)
