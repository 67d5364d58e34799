"""Random crops, flips and holes of a whole batch on its device; every draw is a function of (view seed, view, row of the dataset).

A view is defined once and for all: pad by `padding`, crop at an offset in [0, 2 × padding], then mirror left to right, then blank a square,
in whatever order the steps are listed. The golden tests freeze this.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from core import random


class Crop(BaseModel):
    """Pad every side, then cut out the original size at a random place."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: Literal["crop"] = "crop"
    padding: int = Field(4, ge=1, le=64, description="Pixels added to each side.")
    mode: Literal["zeros", "reflect"] = Field(
        "zeros", description="`zeros` pads with 0 in data units (black), `reflect` mirrors the image at its edge, which is not repeated."
    )


class Flip(BaseModel):
    """Mirror half of the images from left to right."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: Literal["flip"] = "flip"


class Cutout(BaseModel):
    """Set a square around a random pixel to 0 in data units (black); what reaches over the border is lost (DeVries & Taylor 2017).

    The published code does so after normalisation, where 0 is the mean colour.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: Literal["cutout"] = "cutout"
    size: int = Field(16, ge=1, le=1024, description="The side of the square in pixels; smaller than the image.")


Augmentation = Annotated[Crop | Flip | Cutout, Field(discriminator="name")]


def augment(bank: Tensor, rows: Tensor, index: Tensor, steps: Sequence[Augmentation], *, view_seed: int, view: int) -> Tensor:
    """The samples `rows` (B,) of the bank (N, H, W, C), augmented: (B, H, W, C), of the bank's dtype.

    `index` (B,) names the rows of the dataset, from which the draws come. One gather of flat pixels serves all steps.
    """
    _, height, width, channels = bank.shape
    key = random.key_of(view_seed, "augment", view)
    down = torch.arange(height, device=bank.device).expand(len(rows), height)
    right = torch.arange(width, device=bank.device).expand(len(rows), width)
    reflect = False
    hole: Tensor | None = None
    for step in steps:
        # Steps only move coordinates or hide places; each has streams of its own, so adding one does not change another's draws.
        match step:
            case Crop(padding=padding, mode=mode):
                offset = random.integers(key, index, 2 * padding + 1, n=2, stream=0) - padding
                down, right = down + offset[:, :1], right + offset[:, 1:]
                reflect = mode == "reflect"
            case Flip():
                mirrored = random.integers(key, index, 2, n=1, stream=1).bool()
                right = torch.where(mirrored, right.flip(1), right)
            case Cutout(size=size):
                tall, wide = _near(key, index, height, size, stream=2), _near(key, index, width, size, stream=3)
                hole = tall[:, :, None] & wide[:, None, :]
    if reflect:
        down, right = _reflected(down, height), _reflected(right, width)
    inside = ((down >= 0) & (down < height))[:, :, None] & ((right >= 0) & (right < width))[:, None, :]
    if hole is not None:
        inside = inside & ~hole
    place = (rows[:, None] * height + down.clamp(0, height - 1))[:, :, None] * width + right.clamp(0, width - 1)[:, None, :]
    pixels = bank.reshape(-1, channels).index_select(0, place.reshape(-1)).reshape(len(rows), height, width, channels)
    return pixels * inside[..., None]


def _near(key: Tensor, index: Tensor, extent: int, size: int, *, stream: int) -> Tensor:
    """(B, extent) bool: the `size` places around one drawn from all, in the finished image."""
    first = random.integers(key, index, extent, n=1, stream=stream) - size // 2
    place = torch.arange(extent, device=index.device)
    return (place >= first) & (place < first + size)


def _reflected(place: Tensor, extent: int) -> Tensor:
    """Places up to extent - 1 outside [0, extent), mirrored at the first and the last one."""
    return (extent - 1) - ((extent - 1) - place.abs()).abs()
