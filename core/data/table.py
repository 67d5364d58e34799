"""One Parquet file of images, opened with suspicion: its metadata first, then its columns as streams of pages."""

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from core.data.archive import MAX_RATIO
from core.data.pages import page_sizes
from core.errors import Refused

MAX_ROWS = 5_000_000
MAX_FOOTER = 16 << 20
MAX_GROUP = 1 << 30
MAX_PAGE = 192 << 20
_SMALL = 32 << 20
_PIECE = 4 << 20
_SPREAD = 64 << 20
"""Bytes that a few rows may take when all are the largest entry of their dictionary."""
_IMAGES = ("image.bytes", "img.bytes", "image", "img")
_LAYOUT = 'a column "image" of {bytes, path} and a column "label", as datasets.Dataset.to_parquet writes them'
_SMALLER = "dataset.to_parquet(path, batch_size=100) writes small row groups"
_OPEN: Mapping[str, Any] = {
    "pre_buffer": False,
    "buffer_size": 1 << 20,
    "thrift_string_size_limit": MAX_FOOTER,
    "thrift_container_size_limit": 1_000_000,
    "schema_depth_limit": 8,
    "arrow_extensions_enabled": False,
}


@dataclass(frozen=True, slots=True)
class Table:
    """One file, its metadata found acceptable: `image` and `label` are its columns, `names` those of the classes where the file has them.

    `together` images are few enough to be in memory.
    """

    path: Path
    name: str
    split: str
    rows: int
    image: str
    label: str | None
    names: tuple[str, ...] | None
    together: int

    def column(self, column: str, together: int) -> Iterator[tuple[int, list[Any]]]:
        """(row, values) of a column, `together` at a time."""
        from pyarrow import parquet

        at = 0
        with _damaged(self.name), parquet.ParquetFile(self.path, **_OPEN) as file:
            for batch in file.iter_batches(batch_size=together, columns=[column], use_threads=False):
                values = batch.column(0)
                values = values.field("bytes") if column.endswith(".bytes") else values
                if at + len(values) > self.rows:
                    break
                yield at, values.to_pylist()
                at += len(values)
        if at != self.rows:
            raise Refused("/upload", f"{self.name} is damaged: it has not the {self.rows:,} rows that it says")


def open_table(name: str, path: Path, split: str, *, label: str | None, labelled: bool | None) -> Table:
    """Read the metadata of a Parquet file and check it. `label` and `labelled` are the request's. Raises Refused."""
    from pyarrow import parquet

    name = f'"{name}"' if name else "the file"
    _check_end(name, path)
    with _damaged(name), parquet.ParquetFile(path, **_OPEN) as file:
        metadata = file.metadata
        if not 0 <= metadata.num_rows <= MAX_ROWS:
            raise Refused("/upload", f"{name} has {metadata.num_rows:,} rows; at most {MAX_ROWS:,} are read")
        leaves = {metadata.schema.column(k).path: metadata.schema.column(k) for k in range(metadata.num_columns)}
        columns = list(dict.fromkeys(leaf.split(".")[0] for leaf in leaves))
        image = next((leaf for leaf in _IMAGES if leaf in leaves and leaves[leaf].physical_type == "BYTE_ARRAY"), None)
        if image is None or leaves[image].max_repetition_level:
            raise Refused("/upload", f"{name} has no column of images; its columns are {', '.join(columns)[:200]}", hint=_LAYOUT)
        label = _label_column(name, [column for column in columns if column != image.split(".")[0]], label, labelled)
        if label is not None and (label not in leaves or leaves[label].max_repetition_level):
            raise Refused("/upload", f'{name}: the column "{label}" holds no plain values', hint="labels are whole numbers or texts")
        dictionary = _check_groups(name, path, metadata, [image] if label is None else [image, label])
        size = sum(metadata.row_group(g).total_byte_size for g in range(metadata.num_row_groups))
        # Each row may be any entry of a dictionary, however little space that takes in the file.
        together = max(1, min(256, _PIECE * metadata.num_rows // max(1, size), _SPREAD // max(1, dictionary)))
        return Table(path, name, split, metadata.num_rows, image, label, _class_label(metadata.metadata, label), together)


def _check_end(name: str, path: Path) -> None:
    """Look at the end of a Parquet file before the library reads the metadata that it announces."""
    size = path.stat().st_size
    with path.open("rb") as file:
        whole = size >= 12 and file.read(4) == b"PAR1"
        file.seek(max(0, size - 8))
        (length,), mark = struct.unpack("<I", file.read(4).ljust(4)), file.read(4)
    if not whole or mark != b"PAR1" or length > size - 12:
        raise Refused("/upload", f"{name} is no whole Parquet file", hint="upload a .parquet file, or a zip of several; is it truncated?")
    if length > MAX_FOOTER:
        raise Refused("/upload", f"the metadata of {name} has {length:,} bytes; at most {MAX_FOOTER:,} are read", hint=_SMALLER)


def _check_groups(name: str, path: Path, metadata: Any, leaves: Sequence[str]) -> int:
    """Refuse columns that would unpack to more than can be honest, by the metadata and by the pages' own headers; the bytes of the largest
    dictionary in them.
    """
    largest = 0
    with path.open("rb") as file:
        for g in range(metadata.num_row_groups):
            group = metadata.row_group(g)
            for chunk in map(group.column, range(group.num_columns)):
                if chunk.path_in_schema not in leaves:
                    continue
                packed, size = chunk.total_compressed_size, chunk.total_uncompressed_size
                _check_size(f"row group {g} of {name}", packed, size, MAX_GROUP)
                begin = min(at for at in (chunk.dictionary_page_offset, chunk.data_page_offset) if at)
                for k, (page, unpacked) in enumerate(page_sizes(file, begin, begin + packed)):
                    _check_size(f"a page in row group {g} of {name}", page, unpacked, MAX_PAGE)
                    if k == 0 and chunk.has_dictionary_page:
                        largest = max(largest, unpacked)
    return largest


def _check_size(what: str, packed: int, size: int, most: int) -> None:
    if size > most or (size > _SMALL and size > MAX_RATIO * packed):
        raise Refused("/upload", f"{what} would unpack from {packed:,} to {size:,} bytes; at most {most:,} are read", hint=_SMALLER)


def _label_column(name: str, others: Sequence[str], label: str | None, labelled: bool | None) -> str | None:
    """The column of labels, or None for a set without."""
    if labelled is False:
        if label is not None:
            raise Refused("/label", 'a column of labels is named, but "labelled" is false', hint="leave one of them out")
        return None
    asked = label or "label"
    if asked in others:
        return asked
    if not others and label is None and labelled is None:
        return None
    near = get_close_matches(asked, others, n=1) or others[:10]
    hint = f'"label" names the column of labels ({", ".join(near)}), or "labelled" is false' if others else _LAYOUT
    raise Refused("/label", f'{name} has no column "{asked[:80]}"', hint=hint)


def _class_label(metadata: Mapping[bytes, bytes] | None, label: str | None) -> tuple[str, ...] | None:
    """The names of the classes, where the file says them as the `datasets` library does."""
    try:
        feature = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"][label]
        names = feature["names"] if feature["_type"] == "ClassLabel" else None
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) and len(name) <= 200 for name in names) else None


@contextmanager
def _damaged(name: str) -> Iterator[None]:
    """What the library dislikes is a Refused that names the file."""
    import pyarrow

    try:
        yield
    except OSError as wrong:
        if wrong.errno is not None:
            raise
        raise Refused("/upload", f"{name} is damaged: {_line(wrong)}", hint="write or upload it again") from wrong
    except MemoryError as wrong:
        raise Refused("/upload", f"{name} would unpack to more than there is memory for", hint=_SMALLER) from wrong
    except (pyarrow.ArrowException, ValueError, KeyError, RecursionError) as wrong:
        raise Refused("/upload", f"{name} is damaged: {_line(wrong)}", hint="write or upload it again") from wrong


def _line(wrong: Exception) -> str:
    return next(iter(str(wrong).splitlines()), type(wrong).__name__)[:200]
