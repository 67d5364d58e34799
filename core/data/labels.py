"""The classes of a dataset: checked against what was declared, named, and divided into splits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.data.split import set_aside
from core.errors import Refused

MAX_CLASSES = 100_000
TEST_FRACTION = 0.2
TEST_SEED = 0


def check_count(found: int, what: str, *, classes: int | None, class_names: Sequence[str] | None) -> None:
    """Refuse data with another number of classes than the request declares. `what` says where they were counted."""
    if classes is not None and classes != found:
        raise Refused("/classes", f"{what} {found} classes, but classes says {classes}", hint=f'leave "classes" out, or say {found}')
    if class_names is not None and len(class_names) != found:
        raise Refused("/class_names", f"{what} {found} classes, but class_names has {len(class_names)} names")
    if class_names is not None and len(set(class_names)) != found:
        raise Refused("/class_names", "two classes have the same name", hint="name every class once")
    if found < 2:
        raise Refused("/upload", f"{what} {found} class{'es' * (found != 1)}; a classifier needs at least 2")
    if found > MAX_CLASSES:
        raise Refused("/upload", f"{what} {found:,} classes; at most {MAX_CLASSES:,} are taken")


def check_unlabelled(*, classes: int | None, class_names: Sequence[str] | None) -> None:
    """Refuse a request that declares the classes of a set without labels."""
    for field, value in (("classes", classes), ("class_names", class_names)):
        if value is not None:
            raise Refused(f"/{field}", "the data has no labels, so it has no classes", hint=f'leave "{field}" out, or add the labels')


def check_present(labels: Mapping[str, NDArray[np.int64]], names: Sequence[str], *, least: int) -> None:
    """Refuse a class with fewer than `least` training samples, by name."""
    names = names or ("the set",)
    counts = np.bincount(labels["train"], minlength=len(names))
    few = [names[int(label)] for label in np.flatnonzero(counts < least)]
    if few:
        listed = ", ".join(f'"{name}"' for name in few[:5]) + (f" and {len(few) - 5} more" if len(few) > 5 else "")
        raise Refused(
            "/upload",
            f"too few samples: {listed} {'has' if len(few) == 1 else 'have'} fewer than {least} for training",
            hint="add samples, or number the classes without gaps",
        )


@dataclass(frozen=True, slots=True)
class Division:
    """What goes into which split: `labels` by split as it will be, `aside` (n,) bool the rows of the given train split that become test,
    and `notes` with what was decided.
    """

    labels: Mapping[str, NDArray[np.int64]]
    aside: NDArray[np.bool_]
    notes: tuple[str, ...]


def divide(labels: Mapping[str, NDArray[np.int64]], names: Sequence[str]) -> Division:
    """The splits of a dataset whose labels are given by split; a fifth of train is set aside where there is no test split.

    Without `names` the set has no labels, and only the lengths of `labels` count. Raises Refused for a class without samples enough.
    """
    train = labels["train"]
    if "test" in labels:
        check_present(labels, names, least=1)
        return Division(labels, np.zeros(len(train), np.bool_), ())
    check_present(labels, names, least=2)
    _, chosen = set_aside(train, np.arange(len(train)), TEST_FRACTION, "test", TEST_SEED)
    aside = np.zeros(len(train), np.bool_)
    aside[chosen] = True
    if not len(chosen):
        raise Refused(
            "/upload",
            "there is no test split, and too few samples of any class to set some aside",
            hint="add a test split, or more samples",
        )
    fifth = "a stratified fifth" if names else "a fifth"
    note = f"The data has no test split: {fifth}, {len(chosen)} of {len(train)} samples, was set aside as test (seed {TEST_SEED})."
    return Division({**labels, "train": train[~aside], "test": train[aside]}, aside, (note,))


def check_left(before: Mapping[str, NDArray[np.int64]], after: Mapping[str, NDArray[np.int64]], names: Sequence[str]) -> None:
    """Refuse a class that was left without samples in a split when broken files were left out."""
    for split, y in before.items():
        lost = np.setdiff1d(y, after[split])
        if lost.size:
            what = f'of the class "{names[int(lost[0])]}"' if names else ""
            raise Refused("/upload", f"every image {what} in the {split} split is broken", hint="replace them")
