"""Images that swell, lie about their size, move or end early, in an archive of good ones."""

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.core.data.pictures import grey, png
from tests.hostile.archives import zipped
from tests.hostile.inputs import Input

_MARK = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, data: bytes, *, length: int | None = None, check: int | None = None) -> bytes:
    """One chunk of a PNG."""
    sum_ = zlib.crc32(kind + data) if check is None else check
    return struct.pack(">I", len(data) if length is None else length) + kind + data + struct.pack(">I", sum_)


def head(width: int, height: int, depth: int = 8, colour: int = 0, interlace: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">2I5B", width, height, depth, colour, 0, 0, interlace))


def saved(image: Image.Image, form: str, **how: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **how)  # type: ignore[arg-type]
    return buffer.getvalue()


def images() -> dict[str, bytes]:
    """Every file by its name."""
    good, end = grey(1), chunk(b"IEND", b"")
    data = chunk(b"IDAT", zlib.compress(bytes(20)))
    plain = Image.fromarray(np.zeros((4, 4, 3), np.uint8))
    jpeg, webp = saved(plain, "JPEG"), saved(plain, "WEBP")
    moving = {"save_all": True, "append_images": [Image.new("RGB", (4, 4), (k, 9, 9)) for k in range(3)]}
    sof = jpeg.find(b"\xff\xc0")
    return {
        "100,000 by 100,000": _MARK + head(100_000, 100_000) + data + end,
        "2^31 by 2^31": _MARK + head((1 << 31) - 1, (1 << 31) - 1) + data + end,
        "4 GiB wide": _MARK + head(0xFFFFFFFF, 1) + data + end,
        "4472 by 4472 of zeros": png(np.zeros((4472, 4472), np.uint8)),
        "16 bits": saved(Image.new("I;16", (4, 4)), "PNG"),
        "no width": _MARK + head(0, 4) + data + end,
        "a size that lies": _MARK + head(4000, 4000) + data + end,
        "interlaced": _MARK + head(4000, 4000, interlace=1) + data + end,
        "depth 3": _MARK + head(4, 4, depth=3) + data + end,
        "colour 9": _MARK + head(4, 4, colour=9) + data + end,
        "no palette": _MARK + head(4, 4, colour=3) + data + end,
        "a palette of 7 MiB": _MARK + head(4, 4, colour=3) + chunk(b"PLTE", bytes(7 << 20)) + data + end,
        "text of 60 MiB": _MARK + head(4, 4) + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(60 << 20), 9)) + data + end,
        "a profile of 60 MiB": _MARK + head(4, 4) + chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(60 << 20), 9)) + data + end,
        "forty texts of 3 MiB": _MARK + head(4, 4) + chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(3 << 20), 9)) * 40 + data + end,
        "data of 60 MiB": _MARK + head(4, 4) + chunk(b"IDAT", zlib.compress(bytes(60 << 20), 9)) + end,
        "a chunk of 4 GiB": _MARK + head(4, 4) + chunk(b"IDAT", b"", length=0xFFFFFFFF) + end,
        "a wrong checksum": _MARK + head(4, 4) + chunk(b"IDAT", zlib.compress(bytes(20)), check=7) + end,
        "no data": _MARK + head(4, 4) + end,
        "the mark alone": _MARK,
        "two heads": _MARK + head(4, 4) + head(4000, 4000) + data + end,
        "a hundred thousand chunks": _MARK + head(4, 4) + chunk(b"tEXt", b"a\0b") * 100_000 + data + end,
        "a moving PNG": saved(plain, "PNG", **moving),
        "frames of 2^31": _MARK + head(4, 4) + chunk(b"acTL", struct.pack(">2I", (1 << 31) - 1, 0)) + data + end,
        "half a PNG": good[: len(good) // 2],
        "half a JPEG": jpeg[: len(jpeg) // 2],
        "half a WEBP": webp[: len(webp) // 2],
        "a moving WEBP": saved(plain, "WEBP", **moving),
        "a JPEG of 65,535": jpeg[: sof + 5] + b"\xff\xff\xff\xff" + jpeg[sof + 9 :],
        "a JPEG of 4000": jpeg[: sof + 5] + b"\x0f\xa0\x0f\xa0" + jpeg[sof + 9 :],
        "a JPEG of 5 parts": jpeg[: sof + 9] + b"\x05" + jpeg[sof + 10 :],
        "a JPEG of marks": b"\xff\xd8" + b"\xff" * 1_000_000,
        "a JPEG of profiles": b"\xff\xd8" + (b"\xff\xe2\xff\xff" + bytes(65533)) * 30 + jpeg[2:],
        "a JPEG of many scans": jpeg[:-2] * 1 + jpeg[jpeg.find(b"\xff\xda") : -2] * 3000 + b"\xff\xd9",
        "a WEBP that lies": webp[:4] + b"\xff\xff\xff\x7f" + webp[8:],
        "a WEBP of 16,383": webp[:26] + b"\xff\x3f\xff\x3f" + webp[30:],
        "a GIF": saved(plain, "GIF"),
        "a BMP": saved(plain, "BMP"),
        "a TIFF": saved(plain, "TIFF"),
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n(x) (w) file\n",
        "SVG": b'<svg xmlns="a"><image href="file:///etc/passwd"/></svg>',
        "an icon": saved(plain, "ICO"),
        "nothing": b"",
        "a zip": zipped({"a": b"b"}),
        "a pickle": b"\x80\x04cposix\nsystem\n.",
        "CMYK": saved(Image.new("CMYK", (4, 4)), "JPEG"),
        "Exif that lies": saved(plain, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 400),
    }


def inputs(canary: str) -> Iterator[Input]:
    """Each as the first image, and some as one of several, with a size to be scaled to."""
    for k, (what, data) in enumerate(images().items()):
        members = {"cat/0.png": data, "dog/0.png": grey(2)}
        yield Input(f"first: {what}", "dataset", zipped(members), {"format": "imagefolder"})
        if k % 3 == 0:
            members = {"cat/0.png": grey(1), "cat/1.png": data, "dog/0.png": data, "dog/1.png": grey(2)}
            yield Input(f"scaled: {what}", "dataset", zipped(members), {"format": "imagefolder", "size": [8, 8]})
    members = {f"{k % 2}/{k}.png": png(np.full((4400, 4400), k, np.uint8)) for k in range(8)}
    yield Input("many large ones", "dataset", zipped(members, 0), {"format": "imagefolder", "size": [8, 8]})
