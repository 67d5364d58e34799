"""Zip archives from strangers."""

import stat
import struct
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.data.archive import Archive
from core.errors import Refused
from tests.core.data.pictures import pack


def test_members_are_read_whole_and_litter_is_left_out(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"a/b.png": b"hello", "__MACOSX/a/b.png": b"x", "a/.DS_Store": b"x", "a/": b""})
    with Archive(path) as archive:
        assert [member.filename for member in archive.members] == ["a/b.png"]
        assert archive.read(archive.members[0], 5) == b"hello"


@pytest.mark.parametrize("name", ["../evil.png", "a/../../evil.png", "/etc/passwd", "C:/evil.png", "..\\evil.png", "a\nb.png"])
def test_a_name_that_climbs_or_hides_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refused, match="is refused: its"):
        Archive(pack(tmp_path / "a.zip", {"ok.png": b"", name: b"x"}))


def test_a_name_with_a_zero_byte_is_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"catXdog.png": b"x"})
    path.write_bytes(path.read_bytes().replace(b"catXdog", b"cat\0dog"))
    with pytest.raises(Refused, match="does not print"):
        Archive(path)


def test_a_link_is_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("a/link.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(Refused, match="link or a device"):
        Archive(path)


def test_a_member_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"a.png": b"1", "b.png": b"2"})
    path.write_bytes(path.read_bytes().replace(b"b.png", b"a.png"))
    with pytest.raises(Refused, match="twice"):
        Archive(path)


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"a.png": b"1"})
    raw = bytearray(path.read_bytes())
    raw[raw.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(bytes(raw))
    with pytest.raises(Refused, match="encrypted"):
        Archive(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_only_deflate_is_unpacked(tmp_path: Path, method: int) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a.png", b"1" * 1000)
    with pytest.raises(Refused, match="another method"):
        Archive(path)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="more than 200 times its size"):
        Archive(pack(tmp_path / "a.zip", {"train/cat/0.png": b"\0" * (64 << 20)}))


def test_many_small_members_cannot_hide_a_bomb(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="more than can be honest data"):
        Archive(pack(tmp_path / "a.zip", {f"{i}.png": b"\0" * (1 << 20) for i in range(80)}))


def test_a_member_that_lies_about_its_size_yields_no_more_than_it_said(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"a.png": b"x" * 100_000})
    raw = bytearray(path.read_bytes())
    struct.pack_into("<I", raw, raw.rindex(b"PK\x01\x02") + 24, 10)
    path.write_bytes(bytes(raw))
    with Archive(path) as archive, pytest.raises(Refused, match=r'"a.png" is damaged'):
        archive.read(archive.members[0], 1 << 20)


def test_a_member_with_a_flipped_bit_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", b"x" * 1000)
    raw = bytearray(path.read_bytes())
    raw[500] ^= 1
    path.write_bytes(bytes(raw))
    with Archive(path) as opened, pytest.raises(Refused, match=r'"a.png" is damaged'):
        opened.read(opened.members[0], 1 << 20)


def test_a_directory_that_announces_millions_is_refused_unread(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {f"{i}.png": b"" for i in range(50)})
    with pytest.raises(Refused, match="50 members"):
        Archive(path, max_members=20)
    raw = bytearray(path.read_bytes())
    struct.pack_into("<I", raw, raw.rindex(b"PK\x05\x06") + 12, 0xFFFFFF00)
    path.write_bytes(bytes(raw))
    with pytest.raises(Refused, match="announces"):
        Archive(path)


@pytest.mark.parametrize(("raw", "message"), [(b"", "empty"), (b"\x1f\x8b\x08", "not a zip"), (b"PK\x03\x04" + b"\0" * 60, "truncated")])
def test_what_is_no_zip_is_refused(tmp_path: Path, raw: bytes, message: str) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(raw)
    with pytest.raises(Refused, match=message):
        Archive(path)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_mutation_of_an_archive_does_anything_but_read_or_refuse(tmp_path: Path, data: st.DataObject) -> None:
    whole = tmp_path / "whole.zip"
    if not whole.exists():
        pack(whole, {"train/cat/0.png": b"abc" * 50, "train/dog/0.png": b"x", "empty": b""})
    raw = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, max(0, len(raw) - 1)))
        match data.draw(st.sampled_from(["flip", "cut", "insert", "tail"])):
            case "flip" if raw:
                raw[at] ^= 1 << data.draw(st.integers(0, 7))
            case "cut":
                del raw[at : at + data.draw(st.integers(1, 40))]
            case "tail":
                del raw[at:]
            case _:
                raw[at:at] = data.draw(st.binary(max_size=20))
    mutant = tmp_path / "mutant.zip"
    mutant.write_bytes(bytes(raw))
    with suppress(Refused), Archive(mutant) as archive:
        for member in archive.members:
            archive.read(member, 1 << 20)
