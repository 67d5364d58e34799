"""Which classes of a dataset a job uses, and which outputs of its networks stand for them."""

import difflib
from collections.abc import Sequence
from typing import Protocol

from core.errors import Refused


class Named(Protocol):
    """What says how its classes are called, if it has any: a dataset's report."""

    @property
    def class_names(self) -> tuple[str, ...]: ...


def used(report: Named, chosen: Sequence[str] | None, outputs: Sequence[str], *, where: str) -> dict[int, int]:
    """{label in the dataset: output of the networks} of the classes that a job uses: those of `chosen` by their names, all where it is
    None. `outputs` are the names of the networks' outputs.

    Equal names belong together. Where not every class that is used has an output of its name, names that are only the numbers of the
    classes tell nothing, and label k is output k. `Refused` under `where` for a chosen name that the dataset does not have, and for a class
    that is none of the outputs. Empty for a dataset without labels, of which no class can be chosen.
    """
    if not report.class_names:
        if chosen is not None:
            raise Refused(f"{where}/classes", "the dataset has no labels, so no classes to choose", hint='leave "classes" out')
        return {}
    names = report.class_names
    # Sets, because there may be a hundred thousand of each.
    known, wanted = frozenset(names), None if chosen is None else frozenset(chosen)
    for k, name in enumerate(chosen or ()):
        if name not in known:
            near = difflib.get_close_matches(name, names, n=3) or names[:10]
            raise Refused(f"{where}/classes/{k}", f"the dataset has no class {name!r}", hint=f"among its classes are {', '.join(near)}")
    labels = [label for label, name in enumerate(names) if wanted is None or name in wanted]
    # Digits in folders have numbers for names: "5" to "9" are no outputs 0 to 4 where there is an output "5".
    places = {name: output for output, name in enumerate(outputs)}
    by_name = {label: places[names[label]] for label in labels if names[label] in places}
    if len(by_name) == len(labels):
        return by_name
    if _numbers(names) or _numbers(outputs):
        by_place = {label: label for label in labels if label < len(outputs)}
        for label in labels:
            if label not in by_place:
                raise Refused(where, f"label {label} is beyond the {len(outputs)} outputs of the student", hint=_CHOOSE)
        return by_place
    missing = next(names[label] for label in labels if label not in by_name)
    raise Refused(where, f"its class {missing!r} is none of the student's classes", hint=_CHOOSE)


_CHOOSE = '"classes" chooses those that both have, by name'


def _numbers(names: Sequence[str]) -> bool:
    return tuple(names) == tuple(str(number) for number in range(len(names)))
