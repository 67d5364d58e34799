"""The one form in which a dataset lies on disk: a safetensors file that is written as a stream and read by memory-mapping.

"train.x" is (N, H, W, C) uint8 or float32, or (N, D); "train.y" is (N,) int64, and is not there where the data has no labels; "test.*"
likewise, and "validation.*" where the data came with one. The metadata's "report" is the DatasetReport as JSON. Labels come first and the data part starts at a multiple of 64
bytes, so every array is aligned. Nothing here trusts the file more than `read_header` does.
"""

import json
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from core.artifacts import Header, read_header, settle
from core.data.moments import Moments
from core.data.report import SPLITS, DatasetReport
from core.errors import Refused

MAX_BYTES = 32 << 30
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
        notes: tuple[str, ...] = (),
    ) -> None:
        self._path, self._part = path, path.with_name(path.name + ".part")
        self._sample, self._dtype = sample, np.dtype(dtype)
        self._labels = {split: labels[split] for split in SPLITS if split in labels}
        self._class_names, self._notes = class_names, notes
        self._moments = Moments(sample[-1])
        self._least, self._greatest = math.inf, -math.inf
        self._written = dict.fromkeys(self._labels, 0)
        self._stride = math.prod(sample) * self._dtype.itemsize
        total = sum(len(y) * ((8 if class_names else 0) + self._stride) for y in self._labels.values())
        if total > MAX_BYTES:
            raise Refused(
                "/upload",
                f"the dataset would take {total:,} bytes in canonical form; at most {MAX_BYTES:,} are kept",
                hint="fewer or smaller samples",
            )
        self._ranges = self._plan_ranges()
        blank = self._report((_WIDEST,) * sample[-1], (_WIDEST,) * sample[-1], (_WIDEST, _WIDEST))
        self._start = -(-(8 + len(self._header(blank))) // 64) * 64
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
                row = self._written[split] + int(np.flatnonzero(~np.isfinite(x.reshape(len(x), -1)).all(1))[0])
                raise Refused("/upload", f"sample {row} of the {split} split holds a value that is not finite", hint="clean or drop it")
            self._least, self._greatest = min(self._least, float(x.min())), max(self._greatest, float(x.max()))
        if split == "train":
            self._moments.add(x)
        begin, _ = self._ranges[f"{split}.x"]
        _write(self._file.fileno(), np.ascontiguousarray(x).tobytes(), self._start + begin + self._written[split] * self._stride)
        self._written[split] += len(x)

    def finish(self) -> DatasetReport:
        """Write labels and header, sync, and give the file its name."""
        for split, y in self._labels.items():
            if self._written[split] != len(y):
                raise ValueError(f"{split} got {self._written[split]} of {len(y)} samples")
        for split, y in self._labels.items() if self._class_names else ():
            _write(self._file.fileno(), y.astype("<i8").tobytes(), self._start + self._ranges[f"{split}.y"][0])
        span = (0.0, 1.0) if self._dtype.kind == "u" else (self._least, self._greatest)
        report = self._report(self._moments.mean(), self._moments.std(), span)
        header = self._header(report).ljust(self._start - 8)
        _write(self._file.fileno(), struct.pack("<Q", len(header)) + header, 0)
        settle(self._part, self._path)
        return report

    def _report(self, mean: tuple[float, ...], std: tuple[float, ...], span: tuple[float, float]) -> DatasetReport:
        classes = len(self._class_names)
        return DatasetReport(
            input=(self._sample[-1], *self._sample[:-1]),
            classes=classes,
            class_names=self._class_names,
            counts={split: len(y) for split, y in self._labels.items()},
            per_class={split: tuple(np.bincount(y, minlength=classes).tolist()) if classes else () for split, y in self._labels.items()},
            mean=mean,
            std=std,
            range=span,
            dtype="uint8" if self._dtype.kind == "u" else "float32",
            notes=self._notes,
            labelled=bool(classes),
        )

    def _plan_ranges(self) -> dict[str, tuple[int, int]]:
        ranges, at = {}, 0
        for part, width in (("y", 8), ("x", self._stride)) if self._class_names else (("x", self._stride),):
            for split, y in self._labels.items():
                ranges[f"{split}.{part}"] = (at, at + len(y) * width)
                at += len(y) * width
        return ranges

    def _header(self, report: DatasetReport) -> bytes:
        fields: dict[str, object] = {"__metadata__": {"report": report.model_dump_json()}}
        for name, (begin, end) in self._ranges.items():
            count = len(self._labels[name.split(".")[0]])
            shape, dtype = ([count], "I64") if name.endswith(".y") else ([count, *self._sample], "U8" if self._dtype.kind == "u" else "F32")
            fields[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
        return json.dumps(fields, separators=(",", ":")).encode()


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
    stored = (*report.input[1:], report.input[0])
    expected = {}
    for split, count in report.counts.items():
        expected[f"{split}.x"] = ("U8" if report.dtype == "uint8" else "F32", (count, *stored))
        if report.labelled:
            expected[f"{split}.y"] = ("I64", (count,))
    found = {name: (entry.dtype, entry.shape) for name, entry in header.tensors.items()}
    named = report.classes == len(report.class_names) and report.labelled == bool(report.classes)
    if found != expected or not named or not set(report.counts) <= set(SPLITS) or 0 in report.counts.values() or header.start % 8:
        raise Refused(where, "the file is not a dataset in canonical form: its arrays are not those of its report")


def _write(handle: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        done = os.pwrite(handle, view, at)
        view, at = view[done:], at + done
