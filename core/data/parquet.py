"""Datasets as Parquet in the layout of Hugging Face: a column "image" (or "img") of encoded images, a column "label" of numbers or texts.

One file, or a zip of files whose names tell their splits, as in train-00000-of-00002.parquet. Row groups pass by as a stream of pages.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from core.data.archive import Archive
from core.data.image import MAX_BYTES, check_size
from core.data.labels import MAX_CLASSES, check_count, check_unlabelled, divide
from core.data.pictures import convert
from core.data.report import DatasetReport
from core.data.table import MAX_ROWS, Table, open_table
from core.errors import Refused

MAX_FILES = 1_000
_PIECE = 4 << 20
_SPLITS = {"train": "train", "test": "test", "validation": "validation", "valid": "validation", "val": "validation"}
_SPLIT_NAME = re.compile(r"(?:^|[/_.-])(train|test|validation|valid|val)(?=[/_.-])")
_LABEL = f"labels are whole numbers from 0 to classes - 1, below {MAX_CLASSES:,}, or texts; leave out a split without labels"


class Request(BaseModel):
    """What the uploader says of the table. `label` names the column of labels, `size` is (height, width)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    classes: int | None = Field(None, ge=2, le=MAX_CLASSES)
    class_names: tuple[str, ...] | None = None
    size: tuple[int, int] | None = None
    label: str | None = None
    labelled: bool | None = None


class Tables:
    """The images of some Parquet files, as an album; `splits` says where each goes."""

    def __init__(self, tables: Sequence[Table], splits: Sequence[str]) -> None:
        self._tables, self.splits = tables, splits
        self._begins = np.cumsum([0, *(table.rows for table in tables)])

    def name(self, i: int) -> str:
        table = int(np.searchsorted(self._begins, i, "right")) - 1
        return f"{self._tables[table].name} row {i - self._begins[table]}"

    def read(self) -> Iterator[bytes]:
        for table in self._tables:
            for row, values in table.column(table.image, table.together):
                for k, data in enumerate(values):
                    if data is not None and len(data) > MAX_BYTES:
                        raise Refused(
                            "/upload", f"{table.name} row {row + k}: the image has {len(data):,} bytes; at most {MAX_BYTES:,} are read"
                        )
                    yield data or b""


def ingest(path: Path, request: Request, out: Path, heed: Callable[[], None]) -> DatasetReport:
    """Bring Parquet into canonical form at `out`. Raises Refused, naming file, column and row."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as wrong:
        raise Refused(
            "/format", "this worker does not read Parquet", hint="its operator installs the extra: retort-service[parquet]"
        ) from wrong
    check_size(request.size)
    with _files(path, out.parent, heed) as files:
        tables = _tables(files, request)
        if tables[0].label is None:
            check_unlabelled(classes=request.classes, class_names=request.class_names)
            names: tuple[str, ...] = ()
            found = [np.zeros(table.rows, np.int64) for table in tables]
        else:
            names, found = _labels(tables, request, heed)
        labels = {
            split: np.concatenate([y for table, y in zip(tables, found, strict=True) if table.split == split])
            for split in dict.fromkeys(table.split for table in tables)
        }
        division = divide(labels, names)
        aside = iter(division.aside.tolist())
        splits = ["test" if table.split == "train" and next(aside) else table.split for table in tables for _ in range(table.rows)]
        packed = sum(table.path.stat().st_size for table in tables)
        return convert(Tables(tables, splits), division, out, heed, class_names=names, size=request.size, packed=packed)


@contextmanager
def _files(path: Path, room: Path, heed: Callable[[], None]) -> Iterator[Mapping[str, Path]]:
    """{name: file} of the Parquet files. Those of a zip are unpacked into a folder of their own in `room`: they are read by seeking."""
    with path.open("rb") as file:
        first = file.read(4)
    if first[:2] != b"PK":
        yield {"": path}
        return
    with Archive(path, max_members=MAX_FILES) as archive, TemporaryDirectory(dir=room) as folder:
        files = {}
        for k, member in enumerate(archive.members):
            if not member.filename.endswith(".parquet"):
                raise Refused("/upload", f'the archive holds "{member.filename}", which is no Parquet file', hint="a zip of .parquet files")
            files[member.filename] = target = Path(folder) / str(k)
            with archive.stream(member) as stream, target.open("wb") as unpacked:
                left = member.file_size
                while left:
                    heed()
                    unpacked.write(stream.exactly(min(left, _PIECE)))
                    left -= min(left, _PIECE)
        yield files


def _tables(files: Mapping[str, Path], request: Request) -> list[Table]:
    if not files:
        raise Refused("/upload", "the archive holds no file", hint="a zip of .parquet files")
    tables = [
        open_table(name, path, _split(name, alone=len(files) == 1), label=request.label, labelled=request.labelled)
        for name, path in sorted(files.items())
    ]
    tables = [table for split in ("train", "validation", "test") for table in tables if table.split == split and table.rows]
    if not any(table.split == "train" for table in tables):
        raise Refused("/upload", "there are no training samples", hint="train-00000-of-00001.parquet is the name of a training file")
    if sum(table.rows for table in tables) > MAX_ROWS:
        raise Refused("/upload", f"there are more than {MAX_ROWS:,} rows")
    first = tables[0]
    for table in tables:
        if (table.label is None) != (first.label is None) or table.names != first.names:
            raise Refused("/upload", f"{table.name} and {first.name} have different columns of labels")
    return tables


def _split(name: str, *, alone: bool) -> str:
    for part in (name.rsplit("/", 1)[-1], name):
        if told := _SPLIT_NAME.search(part):
            return _SPLITS[told[1]]
    if alone:
        return "train"
    raise Refused(
        "/upload", f'the name of "{name}" tells no split', hint="such as train-00000-of-00001.parquet and test-00000-of-00001.parquet"
    )


def _labels(tables: Sequence[Table], request: Request, heed: Callable[[], None]) -> tuple[tuple[str, ...], list[NDArray[np.int64]]]:
    """The names of the classes, and the labels of every table."""
    texts: dict[str, int] = {}
    numbers, kinds = [], set()
    for table in tables:
        own = np.empty(table.rows, np.int64)
        assert table.label is not None
        for row, values in table.column(table.label, 65_536):
            heed()
            for k, value in enumerate(values):
                kinds.add(type(value))
                if isinstance(value, str) and len(value) <= 200:
                    own[row + k] = texts.setdefault(value, len(texts))
                elif isinstance(value, int) and 0 <= value < MAX_CLASSES:
                    own[row + k] = value
                else:
                    raise Refused("/upload", f"{table.name} row {row + k}: the label is {str(value)[:40]!r}", hint=_LABEL)
            if len(texts) > MAX_CLASSES or len(kinds) > 1:
                raise Refused("/upload", f"the labels of {table.name} are of two types, or more than {MAX_CLASSES:,}", hint=_LABEL)
        numbers.append(own)
    if not texts:
        highest = max(int(own.max()) for own in numbers)
        declared = request.class_names or tables[0].names
        found = max(1 + highest, len(tables[0].names or ()))
        check_count(found, "the labels have", classes=request.classes, class_names=declared)
        return declared or tuple(str(label) for label in range(found)), numbers
    check_count(len(texts), "the labels have", classes=request.classes, class_names=request.class_names)
    names = request.class_names or tuple(sorted(texts))
    if set(names) != set(texts):
        raise Refused("/class_names", f'the label "{sorted(set(texts) - set(names))[0][:80]}" is not among them')
    label = {name: k for k, name in enumerate(names)}
    place = np.array([label[text] for text in texts], np.int64)
    return names, [place[own] for own in numbers]
