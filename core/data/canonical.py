"""The one form in which a dataset lies on disk: a safetensors file that is written as a stream and read by memory-mapping.

"train.x" is (N, H, W, C) uint8 or float32, or (N, D); "train.y" is (N,) int64, and is not there where the data has no labels; "test.*"
likewise, and "validation.*" where the data came with one. The metadata's "report" is the DatasetReport as JSON. Labels come first and
the data part starts at a multiple of 8 bytes, so every array is aligned. Nothing here trusts the file more than `read_header` does.
"""

import json
import math
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from core.artifacts import MAX_HEADER, Header, read_header, settle
from core.data.duplicates import MOST, Digests
from core.data.labels import check_left
from core.data.moments import Moments
from core.data.report import SPLITS, BrokenFile, DatasetReport, Duplicates
from core.errors import Refused

MAX_BYTES = 32 << 30
_FINDINGS = 80 << 10
"""Room in the header for what is only known in the end: notes, duplicates and broken files."""
_PIECE = 4 << 20
_WIDEST = -math.pi * 1e-300  # as many characters as a float's repr can have, so that the final header is never longer than the reserved one


class Writer:
    """Writes one dataset; the labels of every split are known beforehand, the samples pass by once, in any order of splits.

    `sample` is the stored shape of one sample: (H, W, C) or (D,). `class_names` is empty for a set without labels: then only the lengths
    of `labels` count. A context manager: left by an exception, it leaves no file.
    """

    def __init__(
        self,
        path: Path,
        *,
        sample: tuple[int, ...],
        dtype: Literal["uint8", "float32"],
        labels: Mapping[str, NDArray[np.int64]],
        class_names: tuple[str, ...],
    ) -> None:
        self._path, self._part = path, path.with_name(path.name + ".part")
        self._sample, self._dtype = sample, np.dtype(dtype)
        self._labels = {split: labels[split] for split in SPLITS if split in labels}
        self._class_names = class_names
        self._moments = Moments(sample[-1])
        self._digests = Digests({split: len(y) for split, y in self._labels.items()})
        self._least, self._greatest = math.inf, -math.inf
        self._met = dict.fromkeys(self._labels, 0)
        self._omitted: dict[str, list[int]] = {split: [] for split in self._labels}
        self._stride = math.prod(sample) * self._dtype.itemsize
        rows = sum(len(y) for y in self._labels.values())
        width = 8 if class_names else 0
        if rows * (width + self._stride) > MAX_BYTES:
            raise Refused(
                "/upload",
                f"the dataset would take {rows * (width + self._stride):,} bytes in canonical form; at most {MAX_BYTES:,} are kept",
                hint="fewer or smaller samples",
            )
        blank = self._report(self._labels, (_WIDEST,) * sample[-1], (_WIDEST,) * sample[-1], (_WIDEST, _WIDEST))
        reserved = 8 + len(_header(blank, self._ranges(self._labels))) + _FINDINGS
        if reserved > MAX_HEADER:
            raise Refused("/class_names", "the names of the classes are too long", hint="shorter names, or fewer classes")
        self._start = -(-reserved // 64) * 64 + rows * width  # of the samples: labels are put before them in the end
        self._begins = {name: self._start + begin for name, (begin, _) in self._ranges(self._labels, "x").items()}
        self._file = self._part.open("w+b", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        self._part.unlink(missing_ok=True)

    def append(self, split: str, x: NDArray[Any]) -> None:
        """The next samples of a split, (n, *sample), of the dataset's dtype. Refused where a value is not finite."""
        if x.dtype != self._dtype or x.shape[1:] != self._sample:
            raise ValueError(f"expected {self._dtype} {self._sample}, got {x.dtype} {x.shape[1:]}")
        if self._dtype.kind == "f" and len(x):
            if not np.isfinite(x).all():
                row = self._met[split] + int(np.flatnonzero(~np.isfinite(x.reshape(len(x), -1)).all(1))[0])
                raise Refused("/upload", f"sample {row} of the {split} split holds a value that is not finite", hint="clean or drop it")
            self._least, self._greatest = min(self._least, float(x.min())), max(self._greatest, float(x.max()))
        x = np.ascontiguousarray(x)
        if split == "train":
            self._moments.add(x)
        self._digests.add(split, x)
        row = self._met[split] - len(self._omitted[split])
        _write(self._file.fileno(), x.tobytes(), self._begins[f"{split}.x"] + row * self._stride)
        self._met[split] += len(x)

    def omit(self, split: str) -> None:
        """The next sample of a split cannot be read: go on without it and its label."""
        self._omitted[split].append(self._met[split])
        self._met[split] += 1

    def finish(
        self,
        *,
        notes: tuple[str, ...] = (),
        broken: Sequence[BrokenFile] = (),
        name: Callable[[str, int], str] = lambda split, row: f"{split}[{row}]",
    ) -> DatasetReport:
        """Write labels and header, sync, and give the file its name.

        `broken` names the first of the samples that were omitted, `name` tells a row of a split to people. Raises Refused where nothing is
        left of a class in a split.
        """
        for split, y in self._labels.items():
            if self._met[split] != len(y):
                raise ValueError(f"{split} got {self._met[split]} of {len(y)} samples")
        labels = {split: np.delete(y, self._omitted[split]) for split, y in self._labels.items()}
        check_left(self._labels, labels, self._class_names)
        self._close_up(labels)
        ranges = self._ranges(labels)
        start = self._start - sum(end - begin for key, (begin, end) in ranges.items() if key.endswith(".y"))
        for split, y in labels.items() if self._class_names else ():
            _write(self._file.fileno(), y.astype("<i8").tobytes(), start + ranges[f"{split}.y"][0])
        span = (0.0, 1.0) if self._dtype.kind == "u" else (self._least, self._greatest)
        duplicates = self._digests.compare(name)
        report = self._report(labels, self._moments.mean(), self._moments.std(), span).model_copy(
            update={
                "notes": (*notes, *_warnings(duplicates, labels)),
                "duplicates": duplicates,
                "broken": sum(len(rows) for rows in self._omitted.values()),
                "first_broken": tuple(broken),
            }
        )
        header = _header(report, ranges).ljust(start - 8)
        if len(header) > start - 8:
            raise ValueError(f"the report takes {len(header)} bytes, more than the {start - 8} that were kept for it")
        _write(self._file.fileno(), struct.pack("<Q", len(header)) + header, 0)
        settle(self._part, self._path)
        return report

    def _close_up(self, labels: Mapping[str, NDArray[np.int64]]) -> None:
        """Move the samples of later splits to where those of the ones before end, now that some were omitted, and cut the file there."""
        end = self._start
        for name, (begin, end_) in self._ranges(labels, "x").items():
            _move(self._file.fileno(), self._begins[name], self._start + begin, end_ - begin)
            end = self._start + end_
        self._file.truncate(end)

    def _report(
        self, labels: Mapping[str, NDArray[np.int64]], mean: tuple[float, ...], std: tuple[float, ...], span: tuple[float, float]
    ) -> DatasetReport:
        classes = len(self._class_names)
        return DatasetReport(
            input=(self._sample[-1], *self._sample[:-1]),
            classes=classes,
            class_names=self._class_names,
            counts={split: len(y) for split, y in labels.items()},
            per_class={split: tuple(np.bincount(y, minlength=classes).tolist()) if classes else () for split, y in labels.items()},
            mean=mean,
            std=std,
            range=span,
            dtype="uint8" if self._dtype.kind == "u" else "float32",
            labelled=bool(classes),
        )

    def _ranges(self, labels: Mapping[str, NDArray[np.int64]], parts: str = "yx") -> dict[str, tuple[int, int]]:
        """{array: its range in the data part}, of the labels and the samples."""
        ranges, at = {}, 0
        widths = {"y": 8, "x": self._stride} if self._class_names else {"x": self._stride}
        for part, width in widths.items():
            for split, y in labels.items() if part in parts else ():
                ranges[f"{split}.{part}"] = (at, at + len(y) * width)
                at += len(y) * width
        return ranges


def _header(report: DatasetReport, ranges: Mapping[str, tuple[int, int]]) -> bytes:
    fields: dict[str, object] = {"__metadata__": {"report": report.model_dump_json()}}
    for name, (dtype, shape) in _arrays(report).items():
        fields[name] = {"dtype": dtype, "shape": shape, "data_offsets": ranges[name]}
    return json.dumps(fields, separators=(",", ":")).encode()


def _arrays(report: DatasetReport) -> dict[str, tuple[str, tuple[int, ...]]]:
    """{array: (dtype, shape)} of the dataset that a report describes."""
    stored = (*report.input[1:], report.input[0])
    arrays: dict[str, tuple[str, tuple[int, ...]]] = {}
    for split, count in report.counts.items():
        arrays[f"{split}.x"] = ("U8" if report.dtype == "uint8" else "F32", (count, *stored))
        if report.labelled:
            arrays[f"{split}.y"] = ("I64", (count,))
    return arrays


def _warnings(duplicates: Duplicates | None, labels: Mapping[str, NDArray[np.int64]]) -> tuple[str, ...]:
    """What the person must know of equal samples."""
    if duplicates is None:
        return (f"There are too many samples to look for duplicates (more than {MOST:,}).",)
    return tuple(
        f"{count} of {len(labels[later])} samples of the {later} split are in the {earlier} split too: figures on them flatter the student."
        for (earlier, later), count in ((pair.split("/"), count) for pair, count in duplicates.across.items())
        if count
    )


def open_canonical(path: Path, *, where: str = "/dataset") -> tuple[DatasetReport, dict[str, NDArray[Any]]]:
    """The report and the memory-mapped, read-only arrays of a canonical file. Raises Refused for any other file."""
    header = read_header(path, where=where, max_bytes=MAX_BYTES + (16 << 20))
    try:
        report = DatasetReport.model_validate_json(header.metadata.get("report", ""))
    except ValidationError as wrong:
        raise Refused(
            where, "the file is not a dataset in canonical form: it has no report", hint="upload the data as a dataset"
        ) from wrong
    _check(header, report, where)
    types = {"U8": "u1", "F32": "<f4", "I64": "<i8"}
    arrays = {
        name: np.asarray(np.memmap(path, types[entry.dtype], "r", header.start + entry.begin, entry.shape))
        for name, entry in header.tensors.items()
    }
    for split in report.counts if report.labelled else ():
        y = arrays[f"{split}.y"]
        if y.min() < 0 or y.max() >= report.classes:
            raise Refused(where, f"a label of the {split} split is not in 0 to {report.classes - 1}")
    return report, arrays


def _check(header: Header, report: DatasetReport, where: str) -> None:
    found = {name: (entry.dtype, entry.shape) for name, entry in header.tensors.items()}
    named = report.classes == len(report.class_names) and report.labelled == bool(report.classes)
    known = set(report.counts) <= set(SPLITS) and 0 not in report.counts.values()
    if found != _arrays(report) or not named or not known or header.start % 8:
        raise Refused(where, "the file is not a dataset in canonical form: its arrays are not those of its report")


def _write(handle: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        done = os.pwrite(handle, view, at)
        view, at = view[done:], at + done


def _move(handle: int, source: int, target: int, size: int) -> None:
    """Move bytes of a file towards its start."""
    for at in range(0, size if source > target else 0, _PIECE):
        _write(handle, os.pread(handle, min(_PIECE, size - at), source + at), target + at)
