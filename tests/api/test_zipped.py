"""A zip made in pieces, read by Python's own zipfile and by unzip: every part of it, alone, is what the whole has there."""

import io
import shutil
import struct
import subprocess
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.zipped import Member, Zip

FILES = {"README.md": b"# card\n", "empty": b"", "onnx/модель.onnx": bytes(range(256)) * 40}


def member(path: str, content: bytes) -> Member:
    def read(start: int, stop: int) -> Iterator[bytes]:
        yield from (content[at : min(at + 1000, stop)] for at in range(start, stop, 1000))

    return Member(path, len(content), lambda: zlib.crc32(content), read)


def whole(zipped: Zip) -> bytes:
    return b"".join(zipped.read(0, zipped.size))


@pytest.fixture(scope="module")
def zipped() -> Zip:
    return Zip([member(path, content) for path, content in FILES.items()])


def test_its_size_is_known_before_it_is_written(zipped: Zip) -> None:
    assert len(whole(zipped)) == zipped.size


def test_python_reads_it(zipped: Zip) -> None:
    with zipfile.ZipFile(io.BytesIO(whole(zipped))) as read:
        assert read.testzip() is None
        assert {name: read.read(name) for name in read.namelist()} == FILES
        assert {each.compress_type for each in read.infolist()} == {zipfile.ZIP_STORED}


@pytest.mark.skipif(shutil.which("unzip") is None, reason="it needs Info-ZIP's unzip")
def test_unzip_reads_it(zipped: Zip, tmp_path: Path) -> None:
    (tmp_path / "all.zip").write_bytes(whole(zipped))
    said = subprocess.run(["unzip", "-t", "all.zip"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout
    assert "No errors detected" in said.stdout


def test_a_zip_of_nothing_is_one() -> None:
    empty = Zip([])
    with zipfile.ZipFile(io.BytesIO(whole(empty))) as read:
        assert read.namelist() == []


def test_every_range_is_what_the_whole_has_there() -> None:
    small = Zip([member("a", b"0123456789"), member("b/c", b""), member("d", b"x" * 30)])
    expected = whole(small)
    for start in range(small.size + 1):
        for stop in range(start, small.size + 1):
            assert b"".join(small.read(start, stop)) == expected[start:stop], (start, stop)


def test_a_range_reads_only_the_files_it_touches(zipped: Zip) -> None:
    def never(start: int, stop: int) -> Iterator[bytes]:
        raise AssertionError("this file was not asked for")

    def no_sum() -> int:
        raise AssertionError("no header that is asked for holds this file's sum")

    content = FILES["onnx/модель.onnx"]
    half = Zip([Member("README.md", 7, no_sum, never), member("last", content)])
    expected = whole(Zip([member("README.md", FILES["README.md"]), member("last", content)]))
    inside = slice(len(expected) - len(content), len(expected) - 1000)  # within the data of the last file
    assert b"".join(half.read(inside.start, inside.stop)) == expected[inside]


class Window(io.RawIOBase):
    """A zip as a file that can be sought in, of which only what is read is made."""

    def __init__(self, zipped: Zip) -> None:
        self.zipped, self.at = zipped, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = offset + (0, self.at, self.zipped.size)[whence]
        return self.at

    def read(self, size: int = -1) -> bytes:
        stop = self.zipped.size if size < 0 else min(self.at + size, self.zipped.size)
        found = b"".join(self.zipped.read(self.at, stop))
        self.at += len(found)
        return found


def holes(start: int, stop: int) -> Iterator[bytes]:
    while start < stop:
        size = min(1 << 20, stop - start)
        yield bytes(size)
        start += size


@pytest.mark.parametrize("size", [0xFFFFFFFE, 0xFFFFFFFF, 5 << 30], ids=["just below", "just above", "five GiB"])
def test_files_beyond_four_gibibytes_and_those_behind_them_are_found(size: int) -> None:
    zipped = Zip([member("first", b"1"), Member("large", size, lambda: 7, holes), member("last", b"the end")])
    with zipfile.ZipFile(Window(zipped)) as read:
        assert [(each.filename, each.file_size) for each in read.infolist()] == [("first", 1), ("large", size), ("last", 7)]
        assert read.read("last") == b"the end"
        with read.open("large") as file:
            assert file.read(10) == bytes(10)


def test_more_files_than_a_small_zip_can_count_are_all_found() -> None:
    many = Zip([member("again", b"")] * 0x10001)
    with zipfile.ZipFile(Window(many)) as read:
        assert len(read.infolist()) == 0x10001
    end = b"".join(many.read(many.size - 22 - 20 - 56, many.size))
    assert end[:4] == b"PK\6\6"  # zipfile does not count; the record of large zips does, in its bytes 24 to 40
    assert struct.unpack("<QQ", end[24:40]) == (0x10001, 0x10001)


@pytest.mark.parametrize("size", [7, 0xFFFFFFFE, 0xFFFFFFFF, 5 << 30])
def test_the_header_in_front_of_a_file_is_the_one_that_python_writes(size: int) -> None:
    expected = zipfile.ZipInfo("größe", (1980, 1, 1, 0, 0, 0))
    expected.CRC, expected.file_size, expected.compress_size = 0xDEADBEEF, size, size
    header = expected.FileHeader(zip64=size >= 0xFFFFFFFF)
    zipped = Zip([Member("größe", size, lambda: 0xDEADBEEF, holes)])
    assert b"".join(zipped.read(0, len(header))) == header
