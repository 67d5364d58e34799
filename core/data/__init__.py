"""Datasets: one file an upload format, one canonical form on disk, and from it the splits and batches of a job."""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError

from core.data.batches import Batches
from core.data.canonical import open_canonical
from core.data.report import UNLABELLED, DatasetReport, Domain
from core.data.rows import Batch, Rows
from core.data.subset import Splits, subset
from core.errors import Refused

FORMATS = ("imagefolder", "npz", "safetensors", "parquet", "csv")

__all__ = ["FORMATS", "Batch", "Batches", "Dataset", "DatasetReport", "Domain", "Rows", "Splits", "ingest", "open_dataset", "subset"]


class Dataset:
    """A dataset in canonical form, memory-mapped."""

    def __init__(self, path: Path) -> None:
        self.report, self._arrays = open_canonical(path)

    def split(self, name: str) -> Rows:
        """All rows of a split; KeyError where the dataset has none. Splits follow one another in the dataset's numbering of rows."""
        return Rows.whole(
            self._arrays[f"{name}.x"],
            self._arrays[f"{name}.y"] if self.report.labelled else np.full(self.report.counts[name], UNLABELLED),
            first=self._first(name),
            classes=self.report.classes,
            domain=self.report.domain,
        )

    def _first(self, name: str) -> int:
        before = list(self.report.counts)
        return sum(self.report.counts[split] for split in before[: before.index(name)])


def open_dataset(path: Path) -> Dataset:
    """Map a canonical file into memory. Raises Refused for any other file."""
    return Dataset(path)


def ingest(path: Path, request: Mapping[str, Any], out: Path, *, heed: Callable[[], None] = lambda: None) -> DatasetReport:
    """Bring an upload into canonical form at `out`.

    `request` holds "format" and the fields of that format's `Request`; null is as good as absent. Raises Refused at the field,
    or at "/upload".
    `heed` is called between pieces of work: an exception raised there ends the ingestion and leaves no file.
    """
    fields = {name: value for name, value in request.items() if value is not None}
    form = fields.pop("format", None)
    if form not in FORMATS:
        reason = "the format is missing" if form is None else f"there is no format {form!r}"
        raise Refused("/format", reason, hint=f"one of {', '.join(FORMATS)}")
    reader = importlib.import_module(f"core.data.{form}")
    asked: type[BaseModel] = reader.Request
    try:
        parsed = asked.model_validate(fields)
    except ValidationError as wrong:
        error = wrong.errors(include_url=False, include_context=False, include_input=False)[0]
        pointer = "/" + "/".join(str(part) for part in error["loc"])
        if error["type"] == "extra_forbidden":
            raise Refused(pointer, f"the format {form} takes no such field", hint=f"it takes {', '.join(asked.model_fields)}") from wrong
        raise Refused(pointer, error["msg"]) from wrong
    report: DatasetReport = reader.ingest(path, parsed, out, heed)
    return report
