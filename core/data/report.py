"""What is known of a dataset: enough to plan a job with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

SPLITS = ("train", "validation", "test")
MAX_NAME = 120
"""Of longer names of files a report keeps the beginning: it has a bounded place."""
UNLABELLED = -1
"""The label of a sample that has none: the number of no class, so what takes it for one fails."""


@dataclass(frozen=True, slots=True)
class Domain:
    """Where the samples of a dataset lie, in data units: the least and the greatest value that one may have, and mean and deviation of each
    channel (or feature), or one of each for all.
    """

    least: float
    greatest: float
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Duplicates(BaseModel):
    """Samples that are equal byte for byte as they are stored.

    `within` counts, by split, samples that repeat an earlier one of the same split; `across`, by "train/test" and so on, those of the
    latter split that are in the former too. `pairs` names the first few, those across splits before the others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    within: Mapping[str, int] = {}
    across: Mapping[str, int] = {}
    pairs: tuple[tuple[str, str], ...] = ()


class BrokenFile(BaseModel):
    """A file that could not be read, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    reason: str


class DatasetReport(BaseModel):
    """The measurements of one dataset in canonical form.

    `input` is the shape of one sample as a network meets it: (C, H, W) for images, (D,) for vectors. `counts` and `per_class` are by
    split. `mean` and `std` (population) are per channel of the training split, or per feature for vectors, in data units: uint8 data
    counts as [0, 1] after division by 255, float32 data keeps its own range. `range` is [0, 1] for uint8 and the least and greatest
    value of all splits for float32. `notes` are sentences for the person who uploaded the data.

    `duplicates` is None where they were not looked for. Of the `broken` files, which were left out, the `first_broken` are named.
    A set that is not `labelled` has 0 `classes` without names, and () in `per_class` for each split.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: tuple[int, ...]
    classes: int
    class_names: tuple[str, ...]
    counts: Mapping[str, int]
    per_class: Mapping[str, tuple[int, ...]]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    range: tuple[float, float]
    dtype: Literal["uint8", "float32"]
    notes: tuple[str, ...] = ()
    labelled: bool = True
    duplicates: Duplicates | None = None
    broken: int = 0
    first_broken: tuple[BrokenFile, ...] = ()

    @property
    def domain(self) -> Domain:
        """Where the samples lie."""
        return Domain(*self.range, self.mean, self.std)
