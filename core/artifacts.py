"""Files of weights: safetensors, checked in plain Python before any library sees a byte, and written whole or not at all.

The layout of a safetensors file: eight bytes, little-endian, hold the length of the header; the header is one JSON object that
gives each tensor its dtype, its shape and its range in the bytes that follow; the ranges cover those bytes without a hole or an overlap.
"""

import json
import math
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from core.errors import Refused
from core.keys import Matching, Shape, matched

MAX_BYTES = 16 << 30
MAX_HEADER = 8 << 20
MAX_TENSORS = 20_000
MAX_RANK = 8
MAX_DEPTH = 4
_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_REALS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
DTYPES = frozenset({*_REALS, *_INTEGERS})
"""What tensors may be made of: the same, as torch calls them."""
_NAME = re.compile(r"[A-Za-z0-9_.]{1,256}")
_SAVE = "save it with safetensors.torch.save_file"


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a file: `begin` and `end` count bytes from the start of the data part."""

    dtype: str
    shape: Shape
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a safetensors file says of itself; `start` is where its data part begins, in bytes from the start of the file."""

    tensors: Mapping[str, Entry]
    metadata: Mapping[str, str]
    start: int


def read_header(path: Path, *, where: str = "/upload", max_bytes: int = MAX_BYTES) -> Header:
    """Check a safetensors file as reliability demands and return its header; no tensor is read.

    Raises Refused at `where` for whatever is not a whole, plain safetensors file of at most `max_bytes`: a pickle, a zip, a truncated file,
    a header that is too large, too deep, ambiguous or contradicts the bytes.
    """
    size = path.stat().st_size
    if size > max_bytes:
        raise Refused(where, f"the file has {size:,} bytes; at most {max_bytes:,} are read")
    with path.open("rb") as file:
        first = file.read(8)
        _refuse_other_formats(first, where)
        if len(first) < 8:
            raise Refused(where, f"the file is truncated: it has {len(first)} bytes, a safetensors file at least 10", hint=_SAVE)
        (length,) = struct.unpack("<Q", first)
        if length > size - 8 and length <= MAX_HEADER:
            raise Refused(where, f"the file is truncated: its header should have {length:,} bytes, {size - 8:,} follow", hint=_SAVE)
        if not 2 <= length <= MAX_HEADER:
            raise Refused(
                where, f"this is not a safetensors file: its header would have {length:,} bytes (2 to {MAX_HEADER:,} are read)", hint=_SAVE
            )
        raw = file.read(length)
    fields = _parse(raw, where)
    metadata = fields.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise Refused(where, "the header's __metadata__ is not an object of strings")
    if len(fields) > MAX_TENSORS:
        raise Refused(where, f"the file has {len(fields):,} tensors; at most {MAX_TENSORS:,} are read")
    tensors = {name: _entry(name, field, where) for name, field in fields.items()}
    _check_ranges(tensors, size - 8 - length, where)
    return Header(tensors, metadata, 8 + length)


def load_weights(path: Path, expected: Mapping[str, Shape] | None = None, *, where: str = "/upload") -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU, by the names of `expected` where that is given.

    Raises Refused where the file is not sound (see `read_header`), where its names or shapes cannot be matched with those of `expected`
    (see `core.keys.matched`; no tensor is read then), or where a tensor holds a value that is not finite.
    """
    header = read_header(path, where=where)
    if expected is None:
        return _read(path, {name: name for name in header.tensors}, where)
    return _read(path, matched(_shapes(header), expected, {}, where=where).names, where)


def load_into(network: nn.Module, path: Path, *, rename: Mapping[str, str] | None = None, where: str = "/upload") -> Matching:
    """Fill a network with a file's weights, cast to its own types, and say which tensor was which.

    Raises Refused as `load_weights` and `core.keys.matched` do, or where integers stand for reals.
    """
    state = network.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    matching = matched(_shapes(read_header(path, where=where)), shapes, rename or {}, where=where)
    weights = _read(path, matching.names, where)
    for name, tensor in weights.items():
        if tensor.is_floating_point() != state[name].is_floating_point():
            raise Refused(where, f'the tensor "{name}" is {tensor.dtype}, the architecture wants {state[name].dtype}')
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.to(state[name].dtype)).all()):
            raise Refused(where, f'the tensor "{name}" holds values that {state[name].dtype} cannot hold', hint="is it the right file?")
    network.load_state_dict(weights | {name: torch.zeros_like(state[name]) for name in matching.filled})
    return matching


def _shapes(header: Header) -> dict[str, Shape]:
    return {name: entry.shape for name, entry in header.tensors.items()}


def _read(path: Path, names: Mapping[str, str], where: str) -> dict[str, Tensor]:
    """Some tensors of a file that was checked: `names` is {name here: name there}."""
    try:
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(original) for name, original in names.items()}
    except (SafetensorError, ValueError, RuntimeError) as wrong:
        raise Refused(where, f"the file cannot be read as safetensors: {wrong}", hint=_SAVE) from wrong
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            kind = "NaN" if bool(torch.isnan(tensor).any()) else "an infinity"
            raise Refused(
                where, f'the tensor "{name}" holds {kind}', hint="the training that made this file diverged, or the file is damaged"
            )
    return weights


def save_weights(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file beside its place, sync it and rename it: a reader sees the whole file or none."""
    part = path.with_name(path.name + ".part")
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, part, dict(metadata or {}))
    settle(part, path)


def settle(part: Path, path: Path) -> None:
    """Sync the file `part`, rename it to `path` in the same folder, and sync the folder, so that the name survives a power cut."""
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _refuse_other_formats(first: bytes, where: str) -> None:
    if first[:2] == b"PK" or (first[:1] == b"\x80" and first[1:2] in b"\x02\x03\x04\x05"):
        kind = "a zip archive, as those of torch.save and .npz are" if first[:2] == b"PK" else "a pickle, as older ones of torch.save are"
        reason = f"the file begins like {kind}, and not like safetensors"
        raise Refused(where, reason, hint=f'{_SAVE}; a teacher may be a checkpoint of torch.save too: "format": "torch"')
    if first[:8] == b"\x89HDF\r\n\x1a\n":
        raise Refused(where, "this is an HDF5 file, not safetensors", hint=_SAVE)


def _parse(raw: bytes, where: str) -> dict[str, Any]:
    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise Refused(where, f'the header names "{twice[:80]}" twice')
        return fields

    if not raw.startswith(b"{"):
        raise Refused(where, "this is not a safetensors file: its header is no JSON object", hint=_SAVE)
    if _depth(raw) > MAX_DEPTH:
        raise Refused(where, f"the header nests deeper than {MAX_DEPTH} levels")
    try:
        fields = json.loads(raw.decode("utf-8"), object_pairs_hook=distinct)
    except (ValueError, RecursionError) as wrong:  # ValueError: bad JSON, bad UTF-8, an integer of thousands of digits
        raise Refused(where, "the header is not valid JSON: the file is damaged", hint=_SAVE) from wrong
    if not isinstance(fields, dict):
        raise Refused(where, "this is not a safetensors file: its header is no JSON object", hint=_SAVE)
    return fields


def _depth(raw: bytes) -> int:
    """How deep brackets nest outside strings: counted before the parser recurses into them."""
    depth = deepest = 0
    for token in re.finditer(rb'"(?:[^"\\]++|\\.)*+"|[\[{]|[\]}]', raw, re.DOTALL):
        match token[0]:
            case b"[" | b"{":
                depth += 1
                deepest = max(deepest, depth)
            case b"]" | b"}":
                depth -= 1
    return deepest


def _entry(name: str, field: object, where: str) -> Entry:
    if not _NAME.fullmatch(name):
        raise Refused(where, f'the tensor name "{name[:80]}" is not 1 to 256 letters, digits, points and underscores')
    if not isinstance(field, dict) or set(field) != {"dtype", "shape", "data_offsets"}:
        raise Refused(where, f'the tensor "{name}" is not described by dtype, shape and data_offsets')
    dtype, shape, offsets = field["dtype"], field["shape"], field["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise Refused(where, f'the tensor "{name}" has the dtype {str(dtype)[:40]!r}', hint=f"one of {', '.join(_ITEM_BYTES)}")
    if not _sizes(shape) or len(shape) > MAX_RANK:
        raise Refused(where, f'the tensor "{name}" has no proper shape: at most {MAX_RANK} sizes, none negative')
    if not _sizes(offsets) or len(offsets) != 2:
        raise Refused(where, f'the tensor "{name}" has no proper data_offsets')
    begin, end = offsets
    count = math.prod(shape)
    if count * _ITEM_BYTES[dtype] != end - begin:
        raise Refused(
            where, f'the tensor "{name}" needs {count * _ITEM_BYTES[dtype]:,} bytes for its shape {shape}, its range has {end - begin:,}'
        )
    return Entry(dtype, tuple(shape), begin, end)


def _sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 48 for item in value)


def _check_ranges(tensors: Mapping[str, Entry], size: int, where: str) -> None:
    """The ranges must lie one after another and cover the data part exactly."""
    at = 0
    for name, entry in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != at:
            fault = "overlaps another tensor" if entry.begin < at else f"leaves a hole of {entry.begin - at:,} bytes before it"
            raise Refused(where, f'the tensor "{name}" {fault}')
        at = entry.end
    if at > size:
        raise Refused(where, f"the file is truncated: its tensors need {at:,} bytes, {size:,} are there", hint="upload the file again")
    if at < size:
        raise Refused(where, f"the file has {size - at:,} bytes that belong to no tensor")
