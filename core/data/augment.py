"""Random crops and flips of a whole batch on its device; every draw is a function of (view seed, view, row of the dataset).

A view is defined once and for all: pad by `padding` with zeros, crop at an offset in [0, 2 × padding], then mirror left to right, in
whatever order the steps are listed. The golden test freezes this.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from core import random


class Crop(BaseModel):
    """Pad every side with zeros (black), then cut out the original size at a random place."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: Literal["crop"] = "crop"
    padding: int = Field(4, ge=1, le=64, description="Pixels added to each side.")


class Flip(BaseModel):
    """Mirror half of the images from left to right."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: Literal["flip"] = "flip"


Augmentation = Annotated[Crop | Flip, Field(discriminator="name")]


def augment(bank: Tensor, rows: Tensor, index: Tensor, steps: Sequence[Crop | Flip], *, view_seed: int, view: int) -> Tensor:
    """The samples `rows` (B,) of the bank (N, H, W, C), augmented: (B, H, W, C), of the bank's dtype.

    `index` (B,) names the rows of the dataset, from which the draws come. One gather of flat pixels serves all steps.
    """
    _, height, width, channels = bank.shape
    key = random.key_of(view_seed, "augment", view)
    down = torch.arange(height, device=bank.device).expand(len(rows), height)
    right = torch.arange(width, device=bank.device).expand(len(rows), width)
    for step in steps:
        # Both steps only move coordinates; each has its own stream, so adding one does not change the other's draws.
        match step:
            case Crop(padding=padding):
                offset = random.integers(key, index, 2 * padding + 1, n=2, stream=0) - padding
                down, right = down + offset[:, :1], right + offset[:, 1:]
            case Flip():
                mirrored = random.integers(key, index, 2, n=1, stream=1).bool()
                right = torch.where(mirrored, right.flip(1), right)
    inside = ((down >= 0) & (down < height))[:, :, None] & ((right >= 0) & (right < width))[:, None, :]
    place = (rows[:, None] * height + down.clamp(0, height - 1))[:, :, None] * width + right.clamp(0, width - 1)[:, None, :]
    pixels = bank.reshape(-1, channels).index_select(0, place.reshape(-1)).reshape(len(rows), height, width, channels)
    return pixels * inside[..., None]
