"""Valid files of every format, and one change or a few to each: to its bytes, or to what they mean."""

import io
import json
import pickletools
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from tests.core.declared import residual
from tests.core.folders import weights_of
from tests.hostile import archives, headers, images, onnx, pickles, tables
from tests.hostile.inputs import MLP, TEACHER, Input

_NUMBERS = (
    0,
    1,
    2,
    3,
    127,
    128,
    255,
    256,
    32767,
    65535,
    65536,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 40,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 1,
)
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 255, 4096, 1 << 31, 1 << 40, 1 << 64, 10**30, 0.5, -0.0, 1e39, 1e308, "", "x", "input", "../x",
    "a\0b", "a\nb", "\u202e", "F32", "U8", "relu",
    "add", "conv2d", [], {}, [0], [1 << 40], ["a"], {"a": 1}, "9" * 5000, "x" * 300,
)  # fmt: skip
_NAMES = (
    "posix system",
    "builtins eval",
    "torch load",
    "torch._utils _rebuild_tensor_v2",
    "collections OrderedDict",
    "torch FloatStorage",
    "builtins bytearray",
    "torch Size",
)


def bytes_changed(data: bytes, draw: random.Random) -> bytes:
    """One to four changes to bytes: flipped, cut, doubled, overwritten with a number that is at some edge."""
    out = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        at, length = draw.randrange(len(out) + 1), draw.choice((1, 1, 2, 4, 8, 16, 64, 1024))
        match draw.randrange(6):
            case 0:
                out[at : at + 1] = bytes([draw.randrange(256)])
            case 1:
                del out[at : at + length]
            case 2:
                out[at:at] = out[at : at + length] * draw.choice((1, 2, 50))
            case 3:
                width, order = draw.choice((1, 2, 4, 8)), draw.choice(("little", "big"))
                out[at : at + width] = (draw.choice(_NUMBERS) & ((1 << 8 * width) - 1)).to_bytes(width, order)  # type: ignore[arg-type]
            case 4:
                del out[at:]
            case _:
                other = draw.randrange(len(out) + 1)
                out[at : at + length] = out[other : other + length]
    return bytes(out)


def tree_changed(tree: Any, draw: random.Random) -> Any:
    """JSON with one to three of its places changed: replaced, doubled, left out, renamed, or nested in itself."""
    tree = json.loads(json.dumps(tree))
    for _ in range(draw.randint(1, 3)):
        places = _places(tree)
        holder, key = draw.choice(places) if places else ({"": tree}, "")
        match draw.randrange(6):
            case 0 | 1:
                holder[key] = json.loads(json.dumps(draw.choice(_VALUES)))
            case 2:
                del holder[key]
            case 3 if isinstance(holder, dict):
                holder[str(draw.choice(_VALUES))] = holder.pop(key)
            case 4:
                holder[key] = [holder[key]] * draw.choice((1, 2, 50))
            case _:
                other, place = draw.choice(places) if places else (holder, key)
                holder[key] = (
                    json.loads(json.dumps(other[place])) if key in holder or (isinstance(holder, list) and place in _keys(other)) else None
                )
    return tree


def _keys(holder: Any) -> list[Any]:
    return list(holder) if isinstance(holder, dict) else list(range(len(holder)))


def _places(tree: Any) -> list[tuple[Any, Any]]:
    found, waiting = [], [tree]
    while waiting:
        holder = waiting.pop()
        if isinstance(holder, dict | list):
            for key in _keys(holder):
                found.append((holder, key))
                waiting.append(holder[key])
    return found


def header_changed(data: bytes, draw: random.Random) -> bytes:
    """A safetensors file with another header, whose length is mostly right."""
    (length,) = struct.unpack("<Q", data[:8])
    raw = json.dumps(tree_changed(json.loads(data[8 : 8 + length]), draw)).encode()
    return headers.framed(raw, data[8 + length :], draw.choice((None, None, None, len(raw) - 1, len(raw) + 1)))


def members_changed(data: bytes, draw: random.Random, change: Callable[[bytes, random.Random], bytes] = bytes_changed) -> bytes:
    """A zip with a member changed, renamed or left out."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
        method = archive.infolist()[0].compress_type
    name = draw.choice(sorted(members))
    match draw.randrange(5):
        case 0:
            members[draw.choice(("../x", "x", name + "/x", name.upper(), "a/data.pkl"))] = members.pop(name)
        case 1:
            del members[name]
        case _:
            members[name] = change(members[name], draw)
    return archives.zipped(members, method)


def pickle_changed(data: bytes, draw: random.Random) -> bytes:
    """A pickle with opcodes doubled, left out, exchanged, or with another name, its bytes where it is none."""
    try:
        at = [position for _, _, position in pickletools.genops(data) if position is not None]
    except ValueError:
        return bytes_changed(data, draw)
    parts = [data[begin:end] for begin, end in zip(at, [*at[1:], len(data)], strict=True)]
    for _ in range(draw.randint(1, 3)):
        k, other = draw.randrange(len(parts)), draw.randrange(len(parts))
        match draw.randrange(5):
            case 0:
                parts.insert(k, parts[other])
            case 1:
                parts[k] = b""
            case 2:
                parts[k], parts[other] = parts[other], parts[k]
            case 3:
                parts[k] = pickles.name(*draw.choice(_NAMES).split())
            case _:
                parts[k] = draw.choice(
                    (b"N", b")", b"}", b"]", b"(", b"t", b"R", b"b", b"s", b"u", b"Q", b"\x85", b"q\x00", b"h\x00", b"0", b"2")
                )
    return b"".join(parts)


def proto_changed(data: bytes, draw: random.Random) -> bytes:
    """An ONNX model with one to three of its fields changed."""
    import onnx as library

    model = library.load_model_from_string(data)
    for _ in range(draw.randint(1, 3)):
        message = draw.choice(_messages(model))
        fields = [field for field, _ in message.ListFields()]
        if not fields:
            continue
        field = draw.choice(fields)
        value = getattr(message, field.name)
        many = not isinstance(value, str | bytes | int | float) and hasattr(value, "extend")
        if draw.random() < 0.2:
            message.ClearField(field.name)
        elif many and draw.random() < 0.5:
            value.extend(list(value) * draw.choice((1, 20)))
        else:
            new: Any = {
                int: draw.choice((-1, *_NUMBERS[:-2])),
                float: 1e30,
                str: draw.choice(("", "x", "Loop", "Gather", "../w")),
                bytes: b"\xff" * draw.choice((0, 4, 48)),
            }
            held = value[0] if many and len(value) else value
            try:
                if many:
                    value[draw.randrange(len(value))] = new[type(held)]
                else:
                    setattr(message, field.name, new[type(held)])
            except (KeyError, TypeError, ValueError, IndexError):
                continue
    made: bytes = model.SerializeToString()
    return made


def _messages(message: Any) -> list[Any]:
    found = [message]
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if hasattr(value, "extend") else [value]:
                found += _messages(inner)
    return found


def png_changed(data: bytes, draw: random.Random) -> bytes:
    """An image with its bytes changed; of a PNG a chunk is, and has the right checksum."""
    if not data.startswith(b"\x89PNG"):
        return bytes_changed(data, draw)
    chunks, at = [], 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    k = draw.randrange(len(chunks))
    kind, held = chunks[k]
    if kind == b"IDAT" and draw.random() < 0.5:
        chunks[k] = kind, zlib.compress(bytes_changed(zlib.decompress(held), draw))
    else:
        chunks[k] = kind, bytes_changed(held, draw)
    if draw.random() < 0.2:
        chunks.insert(draw.randrange(len(chunks)), draw.choice(chunks))
    return data[:8] + b"".join(images.chunk(*each) for each in chunks)


@cache
def valid() -> Mapping[str, tuple[Input, Callable[[bytes, random.Random], bytes]]]:
    """A valid input of each format, and the change to what it means that its format knows."""
    array = {
        f"{split}_{part}": value
        for part in ("train", "test")
        for split, value in (("x", torch.zeros(6, 4, 4, dtype=torch.uint8)), ("y", torch.tensor([0, 1] * 3)))
    }
    npz, pt, old = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.savez(npz, x=np.zeros((6, 4, 4), np.uint8), y=np.array([0, 1] * 3))
    torch.save({"state_dict": weights_of(MLP, 1), "epoch": 3}, pt)
    torch.save(weights_of(MLP, 1), old, _use_new_zipfile_serialization=False)
    picture = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
    folder = {
        form: {f"{name}/{k}.{form}": images.saved(picture, form) for name in ("cat", "dog") for k in range(3)}
        for form in ("PNG", "JPEG", "WEBP")
    }
    image = {form: archives.zipped(members, zipfile.ZIP_STORED) for form, members in folder.items()}
    csv = "a,b,split,label\n" + "".join(f"{k}.5,{-k}e-3,{'train' if k % 3 else 'test'},{'xy'[k // 3 % 2]}\n" for k in range(12))

    def pictured(data: bytes, draw: random.Random) -> bytes:
        return members_changed(data, draw, png_changed)

    def pickled(data: bytes, draw: random.Random) -> bytes:
        return members_changed(data, draw, pickle_changed)

    def legacy(data: bytes, draw: random.Random) -> bytes:
        ends = [0]
        for _ in range(5):
            stream = io.BytesIO(data[ends[-1] :])
            list(pickletools.genops(stream))
            ends.append(ends[-1] + stream.tell())
        k = draw.randrange(5)
        return data[: ends[k]] + pickle_changed(data[ends[k] : ends[k + 1]], draw) + data[ends[k + 1] :]

    def zipped(data: bytes, draw: random.Random) -> bytes:
        return members_changed(data, draw)

    def lines(data: bytes, draw: random.Random) -> bytes:
        parts = data.split(draw.choice((b",", b"\n", b".")))
        parts[draw.randrange(len(parts))] = draw.choice(
            (b"", b'"', b"nan", b"1e999", b"x" * 70_000, b"\0", b"\xff", b"\r", b"9" * 5000, b"test", b"\n\n")
        )
        return draw.choice((b",", b"\n", b",")).join(parts)

    def footer(data: bytes, draw: random.Random) -> bytes:
        (length,) = struct.unpack("<I", data[-8:-4])
        changed = bytes_changed(data[-8 - length : -8], draw)
        return data[: -8 - length] + changed + struct.pack("<I", len(changed)) + b"PAR1"

    return {
        "safetensors weights": (Input("", "teacher", save(weights_of(MLP, 1)), TEACHER), header_changed),
        "safetensors arrays": (Input("", "dataset", save(array), {"format": "safetensors"}), header_changed),
        "npz": (Input("", "dataset", npz.getvalue(), {"format": "npz"}), zipped),
        "csv": (Input("", "dataset", csv.encode(), {"format": "csv"}), lines),
        "parquet": (Input("", "dataset", tables.good(), {"format": "parquet"}), footer),
        "pt": (Input("", "checkpoint", pt.getvalue()), pickled),
        "pt before zip": (Input("", "checkpoint", old.getvalue()), legacy),
        "onnx": (Input("", "teacher", onnx.model(), {"architecture": None, "format": "onnx"}), proto_changed),
        **{
            f"{form} in zip": (Input("", "dataset", data, {"format": "imagefolder", "size": [8, 8]}), pictured)
            for form, data in image.items()
        },
    }


FORMATS = (
    "safetensors weights", "safetensors arrays", "npz", "csv", "parquet", "pt", "pt before zip", "onnx", "PNG in zip", "JPEG in zip",
    "WEBP in zip", "graph",
)  # fmt: skip


def mutant(seed: int, step: int) -> Input:
    """The input of a step: the same for the same seed and step, wherever it is made. Its name is its format."""
    draw = random.Random(f"{seed}:{step}")
    form = FORMATS[step % len(FORMATS)]
    if form == "graph":
        declared = {"family": "graph", "input": [3, 8, 8], "classes": 10, "nodes": residual(10)}
        request = {"architecture": tree_changed(declared, draw), "normalization": None}
        return Input(form, "architecture", b"", request)
    item, meant = valid()[form]
    change = meant if draw.random() < 0.6 else bytes_changed
    return Input(form, item.asset, change(item.data, draw), item.request)
