"""Which output of a teacher answers for which class of a dataset."""

import difflib
from collections.abc import Mapping, Sequence

from core.errors import Refused


def answering(
    names: Sequence[str], labels: Sequence[str] | None, classes: int, label_map: Mapping[str, str | int] | None = None, *, where: str
) -> tuple[int, ...] | None:
    """For each class of a dataset, by its `names`, the output of a teacher that answers for it; None where output k answers for class k.

    `labels` name the teacher's `classes` outputs, where its owner named them: the dataset's names in another order are found by name. A
    `label_map`, {class of the dataset: name or number of an output}, decides instead, for each class; outputs that it does not name are
    left out. Raises Refused below `where`, for a map that leaves a class out, names what is not there, or one output twice.
    """
    if label_map is None:
        if labels is None or tuple(labels) == tuple(names) or sorted(labels) != sorted(names):
            return None
        places = {label: output for output, label in enumerate(labels)}
        return tuple(places[name] for name in names)
    known = frozenset(names)
    for name in label_map:
        if name not in known:
            raise Refused(_at(where, name), f"the dataset has no class {name!r}", hint=_nearest(name, names, "its classes are"))
    if missing := [name for name in names if name not in label_map]:
        reason = f"{len(missing)} of the dataset's {len(names)} classes are not in it: {', '.join(missing[:5])}"
        raise Refused(where, reason, hint="name the output that answers for each class, or leave label_map out")
    owners = dict[int, str]()
    for name in names:
        output = _output(label_map[name], labels, classes, _at(where, name))
        if output in owners:
            reason = f"output {output} answers for {owners[output]!r} already"
            raise Refused(_at(where, name), reason, hint="an output can answer for one class only")
        owners[output] = name
    found = tuple(owners)
    return None if found == tuple(range(classes)) else found


def other_classes(names: Sequence[str], labels: Sequence[str] | None) -> str | None:
    """What tells that a teacher's outputs, called `labels`, are not the classes of a dataset, called `names`; None where nothing does.

    They are where the names that both have stand at the same outputs, and there are such names: a few may be spelt otherwise. A dataset
    whose classes are called by their numbers, as one without names is, tells nothing, unless all of the teacher's are such numbers too.
    """
    if labels is None or (tuple(names) == tuple(str(number) for number in range(len(names))) and not set(labels) <= set(names)):
        return None
    theirs, ours = ({name: k for k, name in reversed(tuple(enumerate(each)))} for each in (labels, names))
    shared = theirs.keys() & ours.keys()
    if shared and all(theirs[name] == ours[name] for name in shared):
        return None
    k = next(k for k, (label, name) in enumerate(zip(labels, names, strict=False)) if label != name)
    return f"output {k} is {labels[k]!r} there and {names[k]!r} here"


def _output(wanted: str | int, labels: Sequence[str] | None, classes: int, where: str) -> int:
    if isinstance(wanted, int):
        if not 0 <= wanted < classes:
            raise Refused(where, f"there is no output {wanted}: the teacher has {classes}, counted from 0")
        return wanted
    if labels is None:
        raise Refused(where, "the teacher's outputs have no names", hint="their numbers, from 0; or the teacher again, with its labels")
    if wanted not in labels:
        raise Refused(where, f"the teacher has no output {wanted!r}", hint=_nearest(wanted, labels, "its outputs are"))
    return labels.index(wanted)


def _at(where: str, name: str) -> str:
    """The JSON pointer of an entry, whatever its name."""
    return f"{where}/{name.replace('~', '~0').replace('/', '~1')}"


def _nearest(word: str, words: Sequence[str], otherwise: str) -> str:
    near = difflib.get_close_matches(word, words, n=3) if len(words) <= 2000 else []
    return f"did you mean {', '.join(near)}?" if near else f"{otherwise} {', '.join(words[:10])}"
