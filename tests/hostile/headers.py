"""Safetensors files whose headers lie, as weights and as arrays, and values that are no numbers."""

import json
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from safetensors.torch import save

from tests.core.folders import weights_of
from tests.hostile.inputs import MLP, TEACHER, Input


def framed(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A file with this header; `length` is what it says of it."""
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def described(fields: Mapping[str, Any], data: bytes = bytes(24)) -> bytes:
    return framed(json.dumps(fields).encode(), data)


def one(**changes: Any) -> dict[str, Any]:
    return {"x": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24], **changes}}


def headers() -> dict[str, bytes]:
    """Every mutation by its name."""
    good = json.dumps(one()).encode()
    two = {"x": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}, "y": {"dtype": "F32", "shape": [3], "data_offsets": [12, 24]}}

    def pair(begin: int, end: int) -> bytes:
        return described({**two, "y": {**two["y"], "data_offsets": [begin, end], "shape": [(end - begin) // 4]}})

    return {
        "empty": b"",
        "one byte": b"\x00",
        "a length alone": struct.pack("<Q", 10),
        "a length of nothing": framed(b""),
        "a length beyond the file": framed(good, bytes(24), 10_000),
        "a length of 2^63": framed(good, bytes(24), 1 << 63),
        "a length of 2^64 - 1": framed(good, bytes(24), (1 << 64) - 1),
        "a length too short": framed(good, bytes(24), 9),
        "a length into the data": framed(good, bytes(24), len(good) + 8),
        "a header of 9 MiB of spaces": framed(good + b" " * (9 << 20), bytes(24)),
        "data that are cut off": framed(good, bytes(23)),
        "data too many": framed(good, bytes(25)),
        "a name twice": framed(good[:-1] + b"," + good[1:], bytes(24)),
        "dtype twice": framed(good.replace(b'"shape"', b'"dtype": "F64", "shape"'), bytes(24)),
        "metadata twice": framed(good[:-1] + b', "__metadata__": {}, "__metadata__": {}}', bytes(24)),
        "an overlap": pair(8, 20),
        "one inside another": pair(4, 8),
        "the same range": pair(0, 12),
        "a hole": pair(16, 24),
        "an end before its begin": pair(24, 12),
        "negative begin": described(one(data_offsets=[-24, 0])),
        "negative size": described(one(shape=[-2, -3])),
        "one negative size": described(one(shape=[2, -3])),
        "ranges past the end": described(one(shape=[2, 300], data_offsets=[0, 2400])),
        "a product of 2^64": described(one(shape=[1 << 32, 1 << 32])),
        "a product of 2^64 + 6": described(one(shape=[1 << 32, 1 << 32, 6])),
        "a size of 2^63": described(one(shape=[1 << 63], data_offsets=[0, 1 << 65])),
        "a size of a thousand digits": framed(good.replace(b"[2,", b"[" + b"9" * 1000 + b","), bytes(24)),
        "a size of a million digits": framed(good.replace(b"[2,", b"[" + b"9" * 1_000_000 + b","), bytes(24)),
        "a size with a point": described(one(shape=[2.0, 3])),
        "a size of 1e3": framed(good.replace(b"[2, 3]", b"[2e0, 3]"), bytes(24)),
        "a true size": described(one(shape=[True, 6])),
        "a size of text": described(one(shape=["2", 3])),
        "a size of null": described(one(shape=[None, 3])),
        "a shape of text": described(one(shape="23")),
        "a shape of null": described(one(shape=None)),
        "no numbers": described(one(shape=[0, 3], data_offsets=[0, 0]), b""),
        "rank 9": described(one(shape=[2, 3, 1, 1, 1, 1, 1, 1, 1])),
        "rank 100,000": described(one(shape=[1] * 100_000, data_offsets=[0, 4]), bytes(4)),
        "another dtype": described(one(dtype="F31")),
        "a wider dtype": described(one(dtype="F64")),
        "dtype in small letters": described(one(dtype="f32")),
        "a dtype of numbers": described(one(dtype=32)),
        "a dtype of lists": described(one(dtype=["F32"])),
        "a dtype of no library": described(one(dtype="F8_E4M3")),
        "no dtype": framed(b'{"x": {"shape": [6], "data_offsets": [0, 24]}}', bytes(24)),
        "a field too many": described(one(pickle="cos\nsystem")),
        "three offsets": described(one(data_offsets=[0, 12, 24])),
        "offsets of text": described(one(data_offsets="02")),
        "offsets of an object": described(one(data_offsets={"0": 24})),
        "a tensor of null": described({"x": None}),
        "a tensor of text": described({"x": "F32"}),
        "a tensor of a list": described({"x": [1, 2]}),
        "a list": framed(b"[" + good + b"]", bytes(24)),
        "a number": framed(b"12345678", bytes(24)),
        "a text": framed(b'"abcdefgh"', bytes(24)),
        "not JSON": framed(b"{" + b"x" * 20, bytes(24)),
        "half JSON": framed(good[:-1], bytes(24)),
        "JSON and more": framed(good + b"{}", bytes(24)),
        "NaN": framed(good.replace(b"[2, 3]", b"[NaN, 3]"), bytes(24)),
        "Infinity": framed(good.replace(b"[2, 3]", b"[Infinity]"), bytes(24)),
        "lists 100,000 deep": framed(b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        "objects 100,000 deep": framed(b'{"x":' * 100_000 + b"1" + b"}" * 100_000),
        "a megabyte of open brackets": framed(b"{" + b"[" * (1 << 20)),
        "a quote that never ends": framed(b'{"' + b"a" * (4 << 20)),
        "backslashes that never end": framed(b'{"' + b"\\" * (4 << 20)),
        "not UTF-8": framed(good.replace(b"x", b"\xff\xfe"), bytes(24)),
        "half a surrogate": framed(good.replace(b'"x"', b'"\\ud800"'), bytes(24)),
        "UTF-16": framed(good.decode().encode("utf-16"), bytes(24)),
        "a name of nothing": framed(good.replace(b'"x"', b'""'), bytes(24)),
        "a name with a slash": framed(good.replace(b'"x"', b'"../../x"'), bytes(24)),
        "a name with a zero": framed(good.replace(b'"x"', b'"x\\u0000y"'), bytes(24)),
        "a name with lines": framed(good.replace(b'"x"', b'"x\\n\\u202ey"'), bytes(24)),
        "a name of a megabyte": framed(good.replace(b'"x"', b'"' + b"x" * (1 << 20) + b'"'), bytes(24)),
        "a name of Python": framed(good.replace(b'"x"', b'"__class__"'), bytes(24)),
        "metadata of numbers": described({**one(), "__metadata__": {"a": 1}}),
        "metadata of null": described({**one(), "__metadata__": None}),
        "metadata of lists": described({**one(), "__metadata__": ["a"]}),
        "metadata within metadata": described({**one(), "__metadata__": {"a": {"b": "c"}}}),
        "metadata of megabytes": described({**one(), "__metadata__": {"report": "x" * (4 << 20)}}),
        "100,000 tensors": described({f"t{i}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(80_000)}, b""),
        "100,000 twins": framed(b"{" + b",".join(b'"a":0' for _ in range(100_000)) + b"}"),
        "no tensors": framed(b"{}"),
        "a pickle": b"\x80\x02cposix\nsystem\nX\x01\x00\x00\x00a\x85R.",
        "a zip": b"PK\x03\x04" + bytes(30),
        "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(50),
        "a gzip": b"\x1f\x8b" + bytes(50),
        "NumPy": b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
    }


def values() -> dict[str, bytes]:
    """Weights with the right names and the wrong numbers."""
    good = weights_of(MLP, 1)
    last = next(reversed(good))
    made = {}
    for what, value in (("NaN", torch.nan), ("infinity", torch.inf), ("minus infinity", -torch.inf), ("the largest", 3.4e38)):
        made[f"all are {what}"] = save({name: torch.full_like(tensor, value) for name, tensor in good.items()})
        single = good[last].clone()
        single.view(-1)[-1] = value
        made[f"one is {what}"] = save({**good, last: single})
    made["64 bits that 32 cannot hold"] = save({name: tensor.double() * 1e300 for name, tensor in good.items()})
    made["a NaN of 16 bits"] = save({name: torch.full_like(tensor, torch.nan, dtype=torch.bfloat16) for name, tensor in good.items()})
    made["whole numbers"] = save({name: tensor.long() for name, tensor in good.items()})
    return made


def inputs(canary: str) -> Iterator[Input]:
    """Every header as a teacher's weights and every third as a dataset; then the values."""
    for k, (what, data) in enumerate(headers().items()):
        yield Input(f"weights: {what}", "teacher", data, TEACHER)
        if k % 3 == 0:
            yield Input(f"arrays: {what}", "dataset", data, {"format": "safetensors"})
    for what, data in values().items():
        yield Input(f"values: {what}", "teacher", data, TEACHER)
