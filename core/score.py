"""How well a teacher does on a dataset, found out before anybody learns from it."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core.anatomy import Anatomy
from core.data import Dataset, open_dataset
from core.errors import Refused
from core.evaluate import evaluate
from core.events import Phase, Result
from core.outputs import answering, other_classes
from core.party import Party, teacher_in
from core.taps import Tapped
from core.wire import Wire

MOST = 10_000
"""So many test samples are measured at most: the standard deviation of an accuracy is then below half a percent."""
_DEVIATIONS = 3
_PART = 0.1
"""Near chance is within three standard deviations of it, or less than a tenth of the way from there to perfect."""


def examine(folder: Path, task: Mapping[str, Any], wire: Wire) -> None:
    """Measure the teacher of a job folder on its dataset and tell it. Raises Refused where they do not fit together."""
    wire.tell(Phase("evaluate"))
    teacher, weights = task["teacher"], teacher_in(folder)
    party = Party.of(teacher, "/teacher", weights)
    data = open_dataset(folder / "in" / "dataset.safetensors")
    outputs = answers(data, party.anatomy, teacher.get("classes"), task.get("label_map"))
    tapped = party.tapped(weights, (), where="/teacher", outputs=outputs)
    found = score(tapped, data, dataset=task["dataset"], heed=lambda: wire.pulse("evaluating the teacher"))
    wire.tell(Result({"evaluation": found, "warnings": warnings_of(found)}))


def answers(
    data: Dataset, teacher: Anatomy, labels: Sequence[str] | None, label_map: Mapping[str, str | int] | None = None
) -> tuple[int, ...] | None:
    """Which of the teacher's outputs answer for the classes of a dataset, None for output k for class k. Raises Refused at /dataset or
    /label_map where the two do not belong together.
    """
    report = data.report
    if not report.classes:
        raise Refused("/dataset", "the dataset has no labels to hold the teacher's answers against", hint="name a labelled dataset")
    if teacher.input != report.input:
        raise Refused("/dataset", f"the teacher takes inputs of {list(teacher.input)}, the dataset has {list(report.input)}")
    outputs = answering(report.class_names, labels, teacher.classes, label_map, where="/label_map")
    if outputs is None and label_map is None and (other := other_classes(report.class_names, labels)):
        reason = f"the teacher's outputs are of other classes than the dataset's: {other}"
        raise Refused("/dataset", reason, hint='"label_map" says which output answers for which class: {class: output, ...}')
    if (teacher.classes if outputs is None else len(outputs)) != report.classes:
        reason = f"the teacher has {teacher.classes} outputs, the dataset {report.classes} classes"
        raise Refused("/dataset", reason, hint='"label_map" says which output answers for which class: {class: output, ...}')
    return outputs


def score(teacher: Tapped, data: Dataset, *, dataset: str, heed: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Accuracy and loss on the test split, of at most 10,000 samples spread evenly over it; `dataset` is its id, `heed` is called
    often.

    "chance" is the share of the most frequent class among them, which one that never looks would reach; see `_PART` for "near_chance".
    """
    rows = data.split("test")
    whole = len(rows)
    if whole > MOST:
        rows = rows.only(rows.position[np.linspace(0, whole - 1, MOST).astype(np.int64)])
    values: Mapping[str, float] = {}
    for found in evaluate(teacher, rows):
        heed()
        values = found or values
    n = len(rows)
    chance = float(np.bincount(rows.y).max()) / n
    return {
        "dataset": dataset,
        "split": "test",
        **values,
        "of": whole,
        "chance": chance,
        "near_chance": is_near_chance(values["accuracy"], chance, n),
    }


def is_near_chance(accuracy: float, chance: float, n: int) -> bool:
    """Whether an accuracy on n samples may well be that of guessing, or is hardly worth more."""
    return accuracy < chance + max(_DEVIATIONS * math.sqrt(chance * (1 - chance) / n), _PART * (1 - chance))


def warnings_of(found: Mapping[str, Any]) -> list[str]:
    """What a person should know of a score."""
    if not found["near_chance"]:
        return []
    said = f"the teacher is right on {found['accuracy']:.1%} of the test split, where guessing reaches {found['chance']:.1%}"
    order = 'are its outputs in the order of the classes ("labels" names them)'
    return [f"{said}: is its normalization the one it was trained with, {order}, is its layout right?"]
