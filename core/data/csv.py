"""Datasets as CSV: a header row, columns of numbers, one column of labels, and perhaps a column "split" (train, test, validation).

The file is UTF-8, its fields are separated by commas and may be quoted. It is read twice, its labels first: a few thousand rows at a time
are in memory. The classes are the different texts of the label column, sorted, as numbers where all are whole numbers.
"""

import csv
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from core.data.arrays import MAX_ROWS, spread
from core.data.canonical import Writer
from core.data.labels import MAX_CLASSES, check_count, check_unlabelled, divide
from core.data.report import SPLITS, DatasetReport
from core.errors import Refused

MAX_COLUMNS = 50_000
MAX_FIELD = 1 << 16
MAX_RECORD = 4 << 20
MAX_LABEL = 200
_PIECE = 1 << 18
_LARGEST = float(np.finfo(np.float32).max)
_SPLIT_NAMES = {"train": "train", "test": "test", "validation": "validation", "val": "validation"}
_WRITE = "write the file with pandas.DataFrame.to_csv(index=False) or Python's csv module"


class Request(BaseModel):
    """What the uploader says of the table. `label` names the column of labels: else it is the one called "label", or the last."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    classes: int | None = Field(None, ge=2, le=MAX_CLASSES)
    class_names: tuple[str, ...] | None = None
    label: str | None = None
    labelled: bool | None = None


@dataclass(frozen=True, slots=True)
class Columns:
    """The header: all names, the places of the features among them, and those of label and split where there are any."""

    names: Sequence[str]
    features: Sequence[int]
    label: int | None
    split: int | None


def ingest(path: Path, request: Request, out: Path, heed: Callable[[], None]) -> DatasetReport:
    """Bring a CSV into canonical form at `out`. Raises Refused, naming row and column; rows are counted as lines of the file."""
    if request.labelled is False:
        check_unlabelled(classes=request.classes, class_names=request.class_names)
    with _records(path) as records:
        columns = _columns(next(records, (0, []))[1], request)
        splits, numbers, texts = _survey(records, columns, heed)
    _check_guess(columns, request, rows=len(numbers), texts=len(texts))
    names = _class_names(texts, request) if columns.label is not None else ()
    place = {text: label for label, text in enumerate(names)}
    label_of = np.array([place.get(text, 0) for text in texts], np.int64)
    labels = {SPLITS[k]: label_of[numbers[splits == k]] for k in range(len(SPLITS)) if (splits == k).any()}
    if "train" not in labels:
        raise Refused("/upload", "no row belongs to the train split", hint='the column "split" holds train, test or validation')
    division = divide(labels, names)
    met = dict.fromkeys(labels, 0)
    with (
        Writer(out, sample=(len(columns.features),), dtype="float32", labels=division.labels, class_names=names) as writer,
        _records(path) as records,
    ):
        next(records)
        at = 0
        for x in _pieces(records, columns):
            heed()
            for k, split in enumerate(SPLITS):
                rows = x[splits[at : at + len(x)] == k]
                if len(rows):
                    spread(writer, division, split, met[split], rows)
                    met[split] += len(rows)
            at += len(x)
        return writer.finish(notes=division.notes)


@contextmanager
def _records(path: Path) -> Iterator[Iterator[tuple[int, list[str]]]]:
    """(line of the file, fields) of every record that is not blank. What makes the file no CSV is a Refused that names the line."""
    csv.field_size_limit(MAX_FIELD)
    line = finished = 0

    def lines(file: BinaryIO) -> Iterator[str]:
        nonlocal line
        held = 0
        while text := file.readline(MAX_RECORD + 1):
            held = held + len(text) if reader.line_num != finished else len(text)
            line += 1
            if held > MAX_RECORD:
                raise Refused("/upload", f"the record at line {line} has more than {MAX_RECORD:,} bytes", hint="is a quote left open?")
            yield text.decode("utf-8-sig" if line == 1 else "utf-8")

    def records() -> Iterator[tuple[int, list[str]]]:
        nonlocal finished
        try:
            for fields in reader:
                finished = reader.line_num
                if fields:
                    yield reader.line_num, fields
        except UnicodeDecodeError as wrong:
            raise Refused("/upload", f"line {line} is not UTF-8 text", hint='df.to_csv("data.csv", index=False) writes UTF-8') from wrong
        except csv.Error as wrong:
            raise Refused("/upload", f"line {line} is no CSV: {wrong}", hint=_WRITE) from wrong

    with path.open("rb") as file:
        reader = csv.reader(lines(file), strict=True)
        yield records()


def _columns(header: Sequence[str], request: Request) -> Columns:
    names = [name.strip() for name in header]
    if len(names) > MAX_COLUMNS:
        raise Refused("/upload", f"the table has {len(names):,} columns; at most {MAX_COLUMNS:,} are read")
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise Refused("/upload", f'two columns are called "{twice[:80]}"', hint="name every column once, in the first line")
    if len(names) == 1 and any(mark in names[0] for mark in ";\t"):
        raise Refused("/upload", "the header is one field", hint="fields are separated by commas, not by semicolons or tabs")
    if request.labelled is False:
        if request.label is not None:
            raise Refused("/label", 'a column of labels is named, but "labelled" is false', hint="leave one of them out")
        label = None
    elif request.label is not None:
        if request.label not in names:
            near = get_close_matches(request.label, names, n=1) or names[:10]
            raise Refused("/label", f'there is no column "{request.label[:80]}"', hint=f"there are {', '.join(near)}")
        label = names.index(request.label)
    else:
        label = names.index("label") if "label" in names else max((k for k, name in enumerate(names) if name != "split"), default=None)
    split = names.index("split") if "split" in names and names.index("split") != label else None
    features = [k for k in range(len(names)) if k not in (label, split)]
    if not features:
        raise Refused("/upload", "the table has no column of features", hint="a header row, columns of numbers, and a column of labels")
    return Columns(names, features, label, split)


def _survey(
    records: Iterator[tuple[int, list[str]]], columns: Columns, heed: Callable[[], None]
) -> tuple[NDArray[np.uint8], NDArray[np.int32], list[str]]:
    """(split of each row, by its place in SPLITS; number of its label's text; the texts), from a first reading."""
    splits, numbers = bytearray(), array("i")
    texts: dict[str, int] = {}
    for count, (line, fields) in enumerate(records):
        if not count % 4096:
            heed()
        if count == MAX_ROWS:
            raise Refused("/upload", f"the table has more than {MAX_ROWS:,} rows")
        if len(fields) != len(columns.names):
            raise Refused("/upload", f"line {line} has {len(fields)} fields, the header {len(columns.names)}", hint=_WRITE)
        if columns.split is None:
            splits.append(0)
        else:
            split = _SPLIT_NAMES.get(fields[columns.split].strip())
            if split is None:
                raise Refused(
                    "/upload", f'line {line}: "{fields[columns.split][:40]}" in the column "split"', hint="train, test or validation"
                )
            splits.append(SPLITS.index(split))
        text = fields[columns.label].strip() if columns.label is not None else ""
        if columns.label is not None and not 0 < len(text) <= MAX_LABEL:
            fault = f"is longer than {MAX_LABEL} characters" if text else "is empty"
            raise Refused("/upload", f'line {line}: the label, in column "{columns.names[columns.label][:80]}", {fault}')
        numbers.append(texts.setdefault(text, len(texts)))
        if len(texts) > MAX_CLASSES:
            raise Refused(
                "/label" if columns.label is not None else "/upload",
                f"the label column holds more than {MAX_CLASSES:,} different texts",
                hint='"label" names the column of labels',
            )
    if not splits:
        raise Refused("/upload", "the table has no rows", hint="a header row, then a row a sample")
    return np.frombuffer(splits, np.uint8), np.frombuffer(numbers, np.int32), list(texts)


def _check_guess(columns: Columns, request: Request, *, rows: int, texts: int) -> None:
    """Refuse a last column that nobody called labels and that has as many texts as numbers to predict, or one more feature, have."""
    if columns.label is None or request.label is not None or columns.names[columns.label] == "label" or 2 * texts <= rows:
        return
    name = columns.names[columns.label][:80]
    reason = f'the last column, "{name}", counts as the labels, and holds {texts:,} different texts in {rows:,} rows'
    raise Refused("/label", reason, hint='"label" names the column of labels; where there is none, "labelled": false')


def _class_names(texts: Sequence[str], request: Request) -> tuple[str, ...]:
    check_count(len(texts), "the label column has", classes=request.classes, class_names=request.class_names)
    if request.class_names is not None:
        strange = sorted(set(texts) - set(request.class_names))
        if strange:
            raise Refused("/class_names", f'the label "{strange[0][:80]}" is not among them')
        return request.class_names
    whole = all(text.lstrip("-").isascii() and text.lstrip("-").isdigit() and len(text) < 20 for text in texts)
    return tuple(sorted(texts, key=lambda text: (int(text), text)) if whole else sorted(texts))


def _pieces(records: Iterator[tuple[int, list[str]]], columns: Columns) -> Iterator[NDArray[np.float32]]:
    """The features (n, D), some rows at a time, in one buffer; Refused at the first cell that is not a finite number."""
    x = np.empty((max(1, _PIECE // len(columns.features)), len(columns.features)), np.float32)
    row = 0
    for line, fields in records:
        try:
            with np.errstate(over="ignore"):
                x[row] = [float(fields[k]) for k in columns.features]
            sound = "_" not in "".join(fields) and bool(np.isfinite(x[row]).all())
        except ValueError:
            sound = False
        if not sound:
            _check_cells(line, fields, columns)
        row += 1
        if row == len(x):
            yield x
            row = 0
    if row:
        yield x[:row]


def _check_cells(line: int, fields: Sequence[str], columns: Columns) -> None:
    """Refuse a record with a cell that is not a finite number, by its name."""
    for k in columns.features:
        text = fields[k].strip()
        try:
            fault = "" if abs(float(text)) <= _LARGEST else f'"{text[:40]}" is not a finite number'
        except ValueError:
            fault = f'"{text[:40]}" is not a number' if text else "the cell is empty"
        if "_" in text:  # Python reads 1_000 as a thousand; in a table it is the name of something
            fault = f'"{text[:40]}" is not a number'
        if fault:
            hint = "features are numbers: fill in or drop what is missing, and number the categories"
            raise Refused("/upload", f'line {line}, column "{columns.names[k][:80]}": {fault}', hint=hint)
