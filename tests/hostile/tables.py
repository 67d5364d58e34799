"""CSV and Parquet files that swell, lie, never end a line or a quote, or hold what is no image and no number."""

import io
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.core.data.pictures import grey, png
from tests.hostile.inputs import Input


def csvs() -> dict[str, bytes]:
    """Every CSV by its name."""
    good = b"a,b,label\n1,2,x\n3,4,y\n5,6,x\n7,8,y\n"
    wide = b",".join(b"c%d" % k for k in range(60_000))
    return {
        "empty": b"",
        "a header alone": b"a,b,label\n",
        "a mark alone": b"\xef\xbb\xbf",
        "a quote left open": b'a,b,label\n"' + b"1\n" * 4_000_000,
        "a line without an end": b"a" * (16 << 20),
        "a field of a megabyte": good + b"1," + b"2" * (1 << 20) + b",x\n",
        "60,000 columns": wide + b"\n" + b",".join([b"1"] * 60_000),
        "a million commas": b"a,b,label\n" + b"," * 1_000_000,
        "one column": b"a\n1\n2\n",
        "the same column": b"a,a,a,label\n1,2,3,x\n",
        "100,000 columns of one name": b",".join([b"a"] * 40_000),
        "no name": b",,\n1,2,x\n",
        "Windows-1252": good + b"1,2,\xe9\n",
        "UTF-16": good.decode().encode("utf-16"),
        "zeros": good + bytes(1000),
        "zeros alone": bytes(1 << 20),
        "NaN": good + b"nan,1,x\n",
        "inf": good + b"inf,1,x\n",
        "1e999": good + b"1e999,1,x\n",
        "1e39": good + b"1e39,1,x\n",
        "a formula": good + b"=cmd|' /C calc'!A0,1,x\n",
        "hexadecimal": good + b"0x10,1,x\n",
        "underscores": good + b"1_000,1,x\n",
        "Arabic digits": good + "٣,1,x\n".encode(),
        "a number of 60,000 digits": good + b"9" * 60_000 + b",1,x\n",
        "exponent of 60,000 digits": good + b"1e" + b"9" * 60_000 + b",1,x\n",
        "a label of 60,000": good + b"1,2," + b"x" * 60_000 + b"\n",
        "200,000 labels": b"a,label\n" + b"".join(b"1,l%d\n" % k for k in range(200_000)),
        "a label of lines": good + b'1,2,"x\ny\x1b[2J"\n',
        "labels that are numbers without an end": b"a,label\n" + b"".join(b"1,%s\n" % (b"9" * 5000) for _ in range(5)),
        "too few fields": good + b"1,x\n",
        "too many fields": good + b"1,2,3,x\n",
        "quotes within": good + b'1,2"3,x\n',
        "a million blank lines": b"\n" * 2_000_000 + good,
        "carriage returns alone": good.replace(b"\n", b"\r"),
        "2,000,000 carriage returns": b"a,label\r" + b"\r" * 2_000_000,
        "a megabyte of quotes": b'"' * (2 << 20),
        "a split of none": b"a,split,label\n1,nowhere,x\n",
        "tests alone": b"a,split,label\n1,test,x\n2,test,y\n",
        "a million rows of little": b"a,label\n" + b"1,x\n2,y\n" * 250_000,
        "a zip": b"PK\x03\x04",
        "a pickle": b"\x80\x04cposix\nsystem\n.",
        "an SQL injection": good + b'1,2,"x\'; DROP TABLE jobs; --"\n1,2,"x\'; DROP TABLE jobs; --"\n',
    }


def written(table: pa.Table, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


def table(images: list[Any], labels: Any = None, **columns: Any) -> pa.Table:
    labels = [k % 2 for k in range(len(images))] if labels is None else labels
    return pa.table({"image": images, "label": labels, **columns})


def good() -> bytes:
    return written(table([{"bytes": grey(k), "path": "../../etc/passwd"} for k in range(6)]))


def parquets() -> dict[str, bytes]:
    """Every Parquet file by its name."""
    whole, six = good(), [grey(k) for k in range(6)]
    (length,) = struct.unpack("<I", whole[-8:-4])
    footer = whole[-8 - length : -8]
    plain = {"compression": "zstd", "use_dictionary": False}

    def footed(data: bytes, size: int | None = None) -> bytes:
        return whole[: -8 - length] + data + struct.pack("<I", len(data) if size is None else size) + b"PAR1"

    nested: Any = pa.array([[1]] * 6)
    for _ in range(40):
        nested = pa.StructArray.from_arrays([nested], ["f"])
    return {
        "empty": b"",
        "the mark alone": b"PAR1",
        "two marks": b"PAR1PAR1",
        "no footer": b"PAR1" + bytes(4) + b"PAR1",
        "a footer of 4 GiB": footed(footer, 0xFFFFFFFF),
        "a footer that is longer": footed(footer, length + 4),
        "a footer of 20 MiB": footed(footer + bytes(20 << 20)),
        "a footer of zeros": footed(bytes(length)),
        "a footer of ones": footed(b"\xff" * length),
        "half a footer": footed(footer[: length // 2]),
        "a footer of lists": footed(b"\x19\xfc\xff\xff\xff\xff\x0f" + bytes(100)),
        "a footer of structs": footed(b"\x1c" * 10_000),
        "texts of 2 GiB": footed(b"\x18\xff\xff\xff\xff\x07" + bytes(100)),
        "encrypted": whole[:-4] + b"PARE",
        "128 MiB of zeros": written(table([bytes(64 << 20)] * 2), **plain),
        "pages of zeros": written(table([bytes(1 << 20)] * 64), **plain),
        "a dictionary of one": written(table([bytes(8 << 20)] * 200)),
        "gzip of zeros": written(table([bytes(30 << 20)] * 4), compression="gzip", use_dictionary=False),
        "labels of zeros": written(table([b""] * 400_000, np.zeros(400_000, np.int64))),
        "a million rows of null": written(table([None] * 1_000_000, np.zeros(1_000_000, np.int64))),
        "the same image 100,000 times": written(table([grey(1)] * 20_000)),
        "a large image many times": written(table([png(np.zeros((2000, 2000), np.uint8))] * 300)),
        "nulls": written(table([None] * 6)),
        "texts": written(table(["image"] * 6)),
        "numbers": written(table([1] * 6)),
        "lists of bytes": written(table([[b"a"]] * 6)),
        "structs without bytes": written(table([{"path": "/etc/passwd", "bytes": None}] * 6)),
        "a path alone": written(table([{"path": "/etc/passwd"}] * 6)),
        "nested 40 deep": written(table(six, deep=nested)),
        "3000 columns": written(table(six, **{f"c{k}": [1] * 6 for k in range(3000)})),
        "labels of NaN": written(table(six, [0.0, 1.0, float("nan")] * 2)),
        "labels of minus one": written(table(six, [0, -1] * 3)),
        "labels of 2^62": written(table(six, [0, 1 << 62] * 3)),
        "labels of null": written(table(six, [0, None] * 3)),
        "labels of lists": written(table(six, [[0], [1]] * 3)),
        "labels of a megabyte": written(table(six, ["x" * (1 << 20), "y"] * 3)),
        "labels of lines": written(table(six, ["x\n\x1b[2J", "y"] * 3)),
        "no label": written(pa.table({"image": six, "other": [1] * 6})),
        "no image": written(pa.table({"text": ["a"]})),
        "no column": written(pa.table({})),
        "no row": written(table([])),
        "a name of a megabyte": written(pa.table({"image": six, "x" * (1 << 20): [0, 1] * 3})),
        "metadata of lies": written(table(six).replace_schema_metadata({"huggingface": "[" * 100_000})),
        "an Arrow schema of lies": written(table(six), store_schema=False),
        "metadata of wrong names": written(
            table(six).replace_schema_metadata({"huggingface": '{"info":{"features":{"label":{"_type":"ClassLabel","names":[1,null]}}}}'})
        ),
        "an extension type": written(table(six, pa.array([0, 1] * 3), e=pa.array([b"x" * 16] * 6, pa.uuid()))),
        "bytes flipped in the middle": whole[:200] + bytes(200) + whole[400:],
        "an Arrow file": b"ARROW1\0\0" + whole,
        "a pickle": b"\x80\x04cposix\nsystem\n.",
    }


def inputs(canary: str) -> Iterator[Input]:
    for what, data in csvs().items():
        yield Input(f"csv: {what}", "dataset", data, {"format": "csv"})
    for what, data in parquets().items():
        yield Input(f"parquet: {what}", "dataset", data, {"format": "parquet"})
