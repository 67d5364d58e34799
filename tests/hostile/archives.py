"""Zip and npz archives that lie, climb, link, overlap or swell, and arrays that are not what they say."""

import io
import stat
import struct
import zipfile
from collections.abc import Iterator, Mapping

import numpy as np

from tests.core.data.pictures import grey
from tests.hostile.inputs import Input

_LINK, _DEVICE, _PIPE = stat.S_IFLNK | 0o777, stat.S_IFCHR | 0o600, stat.S_IFIFO | 0o600


def zipped(members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED, mode: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method, compresslevel=9) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type, info.external_attr, info.create_system = method, mode << 16, 3
            archive.writestr(info, data)
    return buffer.getvalue()


def pictures() -> dict[str, bytes]:
    """A small good dataset."""
    return {f"{name}/{i}.png": grey(100 * k + i) for k, name in enumerate(("cat", "dog")) for i in range(4)}


def climbing() -> dict[str, bytes]:
    """Members with names that lead elsewhere, beside a good dataset."""
    names = (
        "../x.png", "cat/../../x.png", "/etc/x.png", "//host/share/x.png", "C:\\x.png", "C:/x.png", "\\\\host\\x.png",
        "cat\\..\\..\\x.png", "cat/..",
        "..", "./../x.png", "cat/\n.png", "cat/\x1b[2J.png", "cat/\u202egnp.x", "~/x.png/../../x", "cat/" + "a" * 60_000 + ".png",
        "/".join("a" * 3000),
        "proc/self/environ", "dev/stdin", "CON", "cat/x.png ", " /x.png", "cat//x.png", "cat/./x.png", "", "/", "cat", "cat/x.png/",
    )  # fmt: skip
    made = {f"a member {name[:30]!r} of {len(name)}": zipped({**pictures(), name: grey(7)}) for name in names}
    zero = zipped({**pictures(), "cat/zeroQpng": grey(7)})
    made["a member with a zero byte"] = zero.replace(b"zeroQ", b"zero\0")
    for what, mode in (("link", _LINK), ("device", _DEVICE), ("pipe", _PIPE)):
        made[f"a {what}"] = zipped({"cat/0.png": b"../../../../etc/passwd", "dog/0.png": b"/etc/passwd"}, mode=mode)
    return made


def patched(data: bytes, at: int, value: bytes, *, which: bytes = b"PK\x01\x02") -> bytes:
    """The archive with bytes changed in each record of the directory, or of another kind."""
    out = bytearray(data)
    found = out.find(which)
    while found >= 0:
        out[found + at : found + at + len(value)] = value
        found = out.find(which, found + 4)
    return bytes(out)


def lying() -> dict[str, bytes]:
    """Archives whose directory says other things than their members."""
    good, stored = zipped(pictures()), zipped(pictures(), zipfile.ZIP_STORED)
    large, end = struct.pack("<I", 0xFFFFFFF0), b"PK\x05\x06"
    return {
        "sizes of 4 GiB": patched(good, 24, large),
        "packed sizes of 4 GiB": patched(good, 20, large),
        "both of 4 GiB": patched(good, 20, large * 2),
        "sizes of nothing": patched(good, 24, bytes(4)),
        "packed sizes of nothing": patched(good, 20, bytes(4)),
        "one byte less": patched(stored, 24, b"\x10"),
        "checksums of nothing": patched(good, 16, bytes(4)),
        "offsets past the end": patched(good, 42, large),
        "offsets all the same": patched(good, 42, bytes(4)),
        "offsets of one": patched(good, 42, b"\x01\0\0\0"),
        "method 99": patched(good, 10, b"\x63"),
        "encrypted": patched(good, 8, b"\x01"),
        "zip64 without it": patched(good, 20, b"\xff" * 8),
        "names that differ": patched(good, 30, b"x", which=b"PK\x03\x04"),
        "names of 65,535": patched(good, 28, b"\xff\xff"),
        "extras of 65,535": patched(good, 30, b"\xff\xff"),
        "comments of 65,535": patched(good, 32, b"\xff\xff"),
        "disk 7": patched(good, 34, b"\x07"),
        "a directory past the end": patched(good, 16, large, which=end),
        "a directory of 4 GiB": patched(good, 12, large, which=end),
        "65,535 members": patched(good, 8, b"\xff" * 4, which=end),
        "no members": patched(good, 8, bytes(8), which=end),
        "cut in half": good[: len(good) // 2],
        "the end alone": good[-22:],
        "nothing but PK": b"PK\x03\x04",
        "empty": zipped({}),
        "bytes before": b"#!/bin/sh\n" + good,
        "PK before": b"PK" + good,
        "a comment that is an end": good[:-2] + b"\x16\0" + end + bytes(18),
        "a zip in a zip": zipped({"cat/a.png": good, "dog/a.png": good}),
        "bzip2": zipped(pictures(), zipfile.ZIP_BZIP2),
        "lzma": zipped(pictures(), zipfile.ZIP_LZMA),
        "damaged deflate": patched(good, 34, b"\xff" * 8, which=b"PK\x03\x04"),
    }


def swelling() -> dict[str, bytes]:
    """Bombs: much out of little, in few members or many, in one another or over one another."""
    zeros = bytes(64 << 20)
    many = {f"{k % 2}/{k}.png": bytes(1 << 20) for k in range(70)}
    single = zipped({"cat/0.png": bytes(1 << 20)})
    body, directory = single[: single.find(b"PK\x01\x02")], single[single.find(b"PK\x01\x02") : single.find(b"PK\x05\x06")]
    quoted = body + directory * 3000 + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 3000, 3000, 3000 * len(directory), len(body), 0)
    nothing = zipped({f"cat/{k}.png": b"" for k in range(20_000)}, zipfile.ZIP_STORED)
    return {
        "64 MiB of zeros": zipped({"cat/0.png": zeros, "dog/0.png": b""}),
        "seventy of a megabyte": zipped(many),
        "one member 3000 times": quoted,
        "twenty thousand of nothing": nothing,
        "a bomb in a bomb": zipped({"cat/0.zip": zipped({"0": zeros})}),
        "names that are most of it": zipped({f"cat/{k:060000}.png": b"" for k in range(60)}, zipfile.ZIP_STORED),
    }


def array(x: object = None, y: object = None, **headers: bytes) -> bytes:
    """An .npz of x and y, where each may be bytes: a member as it stands."""
    members = {}
    for name, value in (("x", np.zeros((4, 8, 8), np.uint8) if x is None else x), ("y", np.array([0, 1, 0, 1]) if y is None else y)):
        buffer = io.BytesIO()
        if not isinstance(value, bytes):
            np.lib.format.write_array(buffer, np.asarray(value), allow_pickle=True)
        members[f"{name}.npy"] = value if isinstance(value, bytes) else buffer.getvalue()
    return zipped({**members, **headers})


def member(header: str | bytes, data: bytes = bytes(256), version: int = 1, length: int | None = None) -> bytes:
    """A .npy file with this header."""
    raw = header if isinstance(header, bytes) else header.encode()
    size = len(raw) if length is None else length
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", size) + raw + data


def arrays() -> dict[str, bytes]:
    """Arrays that lie, hold objects, or are no numbers."""

    def said(descr: str = "'|u1'", shape: str = "(4, 8, 8)", fortran: str = "False") -> str:
        return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n"

    nan = np.full((4, 3), np.nan, np.float32)
    return {
        "objects": array(np.array([[{}, []]] * 4, object)),
        "labels of objects": array(y=np.array([0, 1, None, 1], object)),
        "records": array(np.zeros(4, "i4,f8")),
        "texts": array(np.array([["a", "b"]] * 4)),
        "times": array(np.zeros((4, 2), "M8[s]")),
        "complex": array(np.zeros((4, 2), np.complex64)),
        "long doubles": array(np.zeros((4, 2), np.longdouble)),
        "NaN": array(nan),
        "infinities": array(nan.astype(np.float64) * 0 + np.inf),
        "too large for 32 bits": array(np.full((4, 3), 1e300)),
        "no samples": array(np.zeros((0, 8, 8), np.uint8), np.zeros(0, np.int64)),
        "no pixels": array(np.zeros((4, 0, 8), np.uint8)),
        "a single number": array(np.uint8(3)),
        "nine axes": array(np.zeros((4, *[1] * 8), np.uint8)),
        "labels of minus one": array(y=np.array([0, 1, 0, -1])),
        "labels of 2^62": array(y=np.array([0, 1, 0, 1 << 62])),
        "labels of 2^63": array(y=np.array([0, 1, 0, 1 << 63], np.uint64)),
        "labels of NaN": array(y=np.array([0, 1, np.nan, 1])),
        "a shape of 2^62": array(member(said(shape=f"({1 << 62}, 8, 8)"))),
        "a product of 2^64": array(member(said(shape=f"({1 << 32}, {1 << 32})"))),
        "a negative shape": array(member(said(shape="(-4, -8, 8)"))),
        "a shape of true": array(member(said(shape="(True, 8, 32)"))),
        "a shape of text": array(member(said(shape="'4'"))),
        "more than the bytes": array(member(said(shape="(400, 8, 8)"))),
        "fewer than the bytes": array(member(said(shape="(2, 8, 8)"))),
        "columns first": array(member(said(fortran="True"))),
        "code for a header": array(member("__import__('os').mkdir('canary')\n")),
        "code in a shape": array(member(said(shape="(4, __import__('os').system('true'))"))),
        "a lambda for a type": array(member(said(descr="(lambda: 1)()"))),
        "a type of objects": array(member(said(descr="'|O'"))),
        "a type of 2 GiB": array(member(said(descr="'|V2147483647'"))),
        "a type of a type": array(member(said(descr="('|u1', (1000000, 1000000))"))),
        "a type of fields": array(member(said(descr="[('a', '|O'), ('b', '|u1')]"))),
        "a header 60,000 deep": array(member("(" * 60_000)),
        "a header of minuses": array(member(said(shape="(" + "-" * 50_000 + "4,)"))),
        "a header of powers": array(member(said(shape="(9**9**9,)"))),
        "a number of 60,000 digits": array(member(said(shape="(" + "9" * 60_000 + ",)"))),
        "a header of 4 GiB": array(member(said(), version=2, length=0xFFFFFFFF)),
        "version 3": array(member(said(), version=3)),
        "version 9": array(member(said(), version=9)),
        "not ASCII": array(member(b"{'descr': '\xff'}\n")),
        "a zero in it": array(member(said() + "\0")),
        "a header of Python 2": array(member(said(shape="(4L, 8L, 8L)"))),
        "a list of lists": array(member("[" * 90 + "]" * 90)),
        "half a magic": array(b"\x93NUM"),
        "a name too many": array(**{"z.npy": b""}),
        "a pickle": array(b"\x80\x04cposix\nsystem\n."),
        "a name that climbs": array(**{"../x.npy": b""}),
        "a bomb of zeros": array(np.zeros((4000, 128, 128), np.uint8), np.arange(4000) % 2),
        "33 arrays": array(**{f"a{k}.npy": b"" for k in range(33)}),
    }


def inputs(canary: str) -> Iterator[Input]:
    """Archives as image folders, some of them in the other formats that come as a zip; arrays as .npz."""
    for what, data in (climbing() | lying() | swelling()).items():
        yield Input(f"folder: {what}", "dataset", data, {"format": "imagefolder"})
    for what, data in (lying() | swelling()).items():
        yield Input(f"parquet: {what}", "dataset", data, {"format": "parquet"})
        if "64" in what or "65" in what or "size" in what:
            yield Input(f"npz: {what}", "dataset", data, {"format": "npz"})
            yield Input(f"pt: {what}", "checkpoint", data)
    for what, data in arrays().items():
        yield Input(f"array: {what}", "dataset", data, {"format": "npz"})
