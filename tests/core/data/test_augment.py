"""Views of images against NumPy, and against what a hand makes of them."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from core import random
from core.data.augment import Augmentation, Crop, Cutout, Flip, augment

IMAGES = np.random.default_rng(0).integers(1, 256, (23, 5, 6, 3), np.uint8)  # nowhere black


def viewed(*steps: Augmentation) -> NDArray[np.uint8]:
    """All images, augmented."""
    bank, position = torch.from_numpy(IMAGES), torch.arange(23)
    return augment(bank, position, position, steps, view_seed=1, view=0).numpy()


def drawn(high: int, *, n: int = 1, stream: int) -> Tensor:
    """The draws that `viewed` reads from one stream."""
    return random.integers(random.key_of(1, "augment", 0), torch.arange(23), high, n=n, stream=stream)


def test_a_crop_and_a_flip_are_what_a_hand_makes_of_them() -> None:
    """Every image against zero-padding, slicing and mirroring in NumPy, with offsets read from the draws."""
    bank, position = torch.from_numpy(IMAGES), torch.arange(22, -1, -1)
    index, key = position + 100, random.key_of(5, "augment", 2)
    found = augment(bank, position, index, (Crop(padding=2), Flip()), view_seed=5, view=2)
    offsets = random.integers(key, index, 5, n=2, stream=0)
    mirrored = random.integers(key, index, 2, n=1, stream=1)[:, 0]
    assert {0, 1} == set(mirrored.tolist())
    for place, (down, right), flip, image in zip(position, offsets.tolist(), mirrored, found.numpy(), strict=True):
        padded = np.pad(IMAGES[place], ((2, 2), (2, 2), (0, 0)))
        cut = padded[down : down + 5, right : right + 6]
        assert np.array_equal(image, cut[:, ::-1] if flip else cut)


def test_the_view_of_today_is_the_view_of_every_later_version() -> None:
    """A 3×3 image of 1..9, padding 1, worked out by hand from the draws: the golden crop."""
    bank = torch.arange(1, 10, dtype=torch.uint8).reshape(1, 3, 3, 1)
    found = augment(bank, torch.tensor([0, 0]), torch.tensor([0, 1]), (Crop(padding=1), Flip()), view_seed=0, view=0)
    # Both draws are: 0 down, 2 right. Row 0 of the padded image is zeros, rows 1 and 2 from column 2 on are 2 3 0 and 5 6 0.
    assert found[0, :, :, 0].tolist() == [[0, 0, 0], [0, 3, 2], [0, 6, 5]]  # drawn: mirrored
    assert found[1, :, :, 0].tolist() == [[0, 0, 0], [2, 3, 0], [5, 6, 0]]  # drawn: not mirrored


def test_the_order_in_which_steps_are_listed_does_not_matter() -> None:
    bank, position = torch.from_numpy(IMAGES), torch.arange(23)
    first, second = (augment(bank, position, position, steps, view_seed=1, view=0) for steps in ((Crop(), Flip()), (Flip(), Crop())))
    assert torch.equal(first, second)


@pytest.mark.parametrize("padding", [1, 2, 4])
def test_a_reflecting_crop_is_what_numpy_makes_of_it(padding: int) -> None:
    offsets = drawn(2 * padding + 1, n=2, stream=0)
    for image, (down, right), found in zip(IMAGES, offsets.tolist(), viewed(Crop(padding=padding, mode="reflect")), strict=True):
        padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)), mode="reflect")
        assert np.array_equal(found, padded[down : down + 5, right : right + 6])


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_a_cutout_blanks_a_square_that_is_clipped_at_the_border(size: int) -> None:
    downs, rights = drawn(5, stream=2)[:, 0].tolist(), drawn(6, stream=3)[:, 0].tolist()
    assert (min(downs), max(downs), min(rights), max(rights)) == (0, 4, 0, 5)
    for image, down, right, found in zip(IMAGES, downs, rights, viewed(Cutout(size=size)), strict=True):
        wanted = image.copy()
        top, left = down - size // 2, right - size // 2
        wanted[max(top, 0) : top + size, max(left, 0) : left + size] = 0
        assert np.array_equal(found, wanted)


def test_a_cutout_comes_last_and_leaves_every_other_draw_as_it_was() -> None:
    """The place of the hole does not move with the crop or the mirror, and beside it the view is the one without."""
    for mode in ("zeros", "reflect"):
        with_hole, without = (viewed(Crop(padding=2, mode=mode), Flip(), *hole) for hole in ((Cutout(size=3),), ()))
        hole = viewed(Cutout(size=3)) == 0
        assert np.array_equal(with_hole, np.where(hole, 0, without))


def test_the_reflected_view_and_the_hole_of_today_are_those_of_every_later_version() -> None:
    """The image and the draws of the golden crop: 0 down, 2 right. Padded, it has rows 2 1 2 3 2 of the image, and so its columns."""
    bank, rows = torch.arange(1, 10, dtype=torch.uint8).reshape(1, 3, 3, 1), torch.tensor([0, 0])
    reflected = augment(bank, rows, torch.tensor([0, 1]), (Crop(padding=1, mode="reflect"),), view_seed=0, view=0)
    assert reflected[..., 0].tolist() == [[[5, 6, 5], [2, 3, 2], [5, 6, 5]]] * 2
    holed = augment(bank, rows, torch.tensor([0, 1]), (Cutout(size=2),), view_seed=0, view=0)
    # The centres drawn are (2, 0) and (1, 0): rows 1 and 2, or 0 and 1, of column 0 and of one that is not there.
    assert holed[..., 0].tolist() == [[[1, 2, 3], [0, 5, 6], [0, 8, 9]], [[0, 2, 3], [0, 5, 6], [7, 8, 9]]]
