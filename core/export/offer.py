"""From the trained student to what is offered: write each format asked for, examine it in a fresh process, refuse what disagrees."""

import shutil
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.blobs import digest_of
from core.data.rows import Rows
from core.errors import Refused
from core.events import Event, Exported, File, Log
from core.export import Facts, Format, Unfaithful, formats
from core.export.bundle import write_documents
from core.export.fresh import Subject, examine
from core.export.held import calibrating, hold
from core.export.safetensors import lines as lines_of_weights
from core.export.trained import Trained
from core.frozen import Frozen
from core.networks import Family
from core.taps import Tapped

DOCUMENTS = "card"
"""The format of the event that brings the model card and what belongs to every format."""
WEIGHTS = "safetensors"
"""The format that is the student itself; nothing can be offered where it is not."""
_TEACHER = "the teacher"


@dataclass(frozen=True, slots=True)
class Weights:
    """A network in a file, to be measured beside the student: a teacher, of a family or frozen."""

    network: Family | Frozen
    normalization: Mapping[str, Sequence[float]] | None
    path: Path


@dataclass(frozen=True, slots=True)
class Offer:
    """What became of one format: `refused` is None where it is offered, else the reason; `facts` are its figures, if it has any."""

    format: str
    refused: str | None
    facts: Mapping[str, Any]
    files: tuple[File, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For the result of the job."""
        return {"format": self.format, "refused": self.refused, "facts": dict(self.facts)}


def offer(
    asked: Sequence[str],
    student: Tapped,
    *,
    facts: Facts,
    teacher: Weights | None,
    test: Rows,
    train: Rows,
    folder: Path,
    threads: int,
    look: Callable[[str], None],
    tell: Callable[[Event], None],
    known: Sequence[Mapping[str, Any]] = (),
) -> list[Offer]:
    """Write `student` into `folder`/out/export in every format of `asked`; what became of each. An event is told for each that is offered
    and last for the documents, and a line for the person for each that is not.

    `test` and `train` are the rows that exports are compared on and calibrated with; `known` are offers of the same student that were made
    before, for the card. `look(doing)` is called between two pieces of work, and what it raises ends it. `Unfaithful` where the weights
    themselves do not compute what the student computes; any other format that disagrees is refused alone.
    """
    look("exporting")
    place, scratch = folder / "out" / "export", folder / "out" / "verify"
    place.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    held = scratch / "held.safetensors"
    hold(student, test, held, flops=facts.flops)
    trained = Trained(student, facts.family, normalizes=facts.normalization is not None, calibration=lambda: calibrating(train, facts.seed))
    failed = dict[str, str]()
    for name in asked:
        look("exporting")
        if reason := _write(formats()[name], trained, place):
            failed[name] = f"it could not be written: {reason}"
    subjects = [
        Subject(name, str(place), form.lines(facts.family, facts.normalization, threads), form.takes)
        for name, form in formats().items()
        if name in asked and name not in failed
    ]
    if teacher is not None:
        subjects.insert(0, _teacher(teacher, scratch / "teacher", threads))
    found = examine(subjects, held, scratch, threads=threads, present=test.present, look=look)
    offers = [
        _judge(name, failed.get(name), found.get(name, {}), student=trained, facts=facts, place=place, folder=folder) for name in asked
    ]
    shutil.rmtree(scratch)
    told = [*known, *(each.to_json() for each in offers)]
    documents = write_documents(facts, told, place, threads=threads, teacher=found.get(_TEACHER, {}).get("latency"))
    for each in offers:
        tell(Log(f"the export {each.format} is not offered: {each.refused}", "warning") if each.refused else _event(each))
    tell(Exported(DOCUMENTS, tuple(_file(path, folder) for path in documents)))
    return offers


def _event(made: Offer) -> Exported:
    return Exported(made.format, made.files, made.facts)


def _write(form: Format, student: Trained, folder: Path) -> str | None:
    """Why a format could not be written; None where it was. What an exporter raises is its own affair: the other formats do not suffer."""
    try:
        form.write(student, folder)
    except (Unfaithful, OSError, MemoryError):
        raise
    except Refused as refused:
        return refused.reason
    except Exception as error:
        traceback.print_exc()
        return f"{type(error).__name__}: {error}".splitlines()[0][:300]
    return None


def _judge(name: str, failed: str | None, found: Mapping[str, Any], *, student: Trained, facts: Facts, place: Path, folder: Path) -> Offer:
    form = formats()[name]
    paths = [place / file for file in form.files]
    refused = failed or found.get("error") or form.tolerance.disagreement(found)
    if refused and name == WEIGHTS:
        raise Unfaithful(f"the weights that were written are not the trained student: {refused}")
    figures = _figures(form, found, student, facts, paths[0]) if "compared" in found else {}
    if refused is None:
        return Offer(name, None, figures, tuple(_file(path, folder) for path in paths))
    for path in paths:
        path.unlink(missing_ok=True)
    return Offer(name, refused, figures)


def _figures(form: Format, found: Mapping[str, Any], student: Trained, facts: Facts, model: Path) -> dict[str, Any]:
    """What is told of an export that was compared, offered or not."""
    shares = {"accuracy": found["hits"] / found["labelled"], "student_accuracy": found["student_hits"] / found["labelled"],
              "labelled": found["labelled"]} if "labelled" in found else {}  # fmt: skip
    return {
        "file": model.name,
        "bytes": model.stat().st_size,
        "parameters": facts.parameters,
        "flops": facts.flops,
        "max_abs_diff": found["max_abs_diff"],
        "top1_agreement": found["same"] / found["compared"],
        "compared": found["compared"],
        **shares,
        "latency": found["latency"],
        "device": "cpu",
        "threads": found["threads"],
        "normalization": "inside" if form.normalizes else "outside",
        **({"calibrated_on": len(student.calibration)} if form.calibrates else {}),
        **({"warning": form.warning} if form.warning else {}),
    }


def _teacher(teacher: Weights, folder: Path, threads: int) -> Subject:
    folder.mkdir()
    network, space = teacher.network, teacher.normalization
    (folder / "model").with_suffix(teacher.path.suffix).symlink_to(teacher.path)
    if isinstance(network, Frozen):
        return Subject(_TEACHER, str(folder), network.lines(space, threads), "numpy", compare=False)
    (folder / "network.py").write_text(network.source())
    return Subject(_TEACHER, str(folder), lines_of_weights(network, space, threads), "torch", compare=False)


def _file(path: Path, folder: Path) -> File:
    return File(path.name, path.relative_to(folder).as_posix(), digest_of(path), path.stat().st_size)
