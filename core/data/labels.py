"""The classes of a dataset: checked against what was declared, named, and divided into splits."""

from collections.abc import Mapping, Sequence

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


def check_present(labels: Mapping[str, NDArray[np.int64]], names: Sequence[str], *, least: int) -> None:
    """Refuse a class with fewer than `least` training samples, by name."""
    counts = np.bincount(labels["train"], minlength=len(names))
    few = [names[int(label)] for label in np.flatnonzero(counts < least)]
    if few:
        listed = ", ".join(f'"{name}"' for name in few[:5]) + (f" and {len(few) - 5} more" if len(few) > 5 else "")
        raise Refused(
            "/upload",
            f"too few samples: {listed} {'has' if len(few) == 1 else 'have'} fewer than {least} for training",
            hint="add samples, or number the classes without gaps",
        )


def aside_for_test(labels: NDArray[np.int64]) -> tuple[NDArray[np.bool_], str]:
    """Which samples are set aside as a test split, (n,) bool, where the data came with none; and the sentence that says so."""
    _, aside = set_aside(labels, np.arange(len(labels)), TEST_FRACTION, "test", TEST_SEED)
    mask = np.zeros(len(labels), np.bool_)
    mask[aside] = True
    if not len(aside):
        raise Refused(
            "/upload",
            "there is no test split, and too few samples of any class to set some aside",
            hint="add a test split, or more samples",
        )
    return (
        mask,
        f"The data has no test split: a stratified fifth, {len(aside)} of {len(labels)} samples, was set aside as test (seed {TEST_SEED}).",
    )
