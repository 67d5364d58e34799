"""The job folder, the cache, and the way between them."""

import errno
import os
from pathlib import Path

import pytest

from core.blobs import Directory
from core.errors import Corrupt
from worker.home import Home
from worker.stage import LOG_LIMIT, TAIL, JobFolder, keep, prune, stage


def nothing() -> None:
    """A tick."""


class Far(Directory):
    """A store whose bytes are nobody's files, as those in a database."""

    def file(self, digest: str) -> Path | None:
        return None


class Near(Directory):
    """A store on this disk."""

    def file(self, digest: str) -> Path | None:
        return self.path(digest)


@pytest.fixture
def store(tmp_path: Path) -> Far:
    return Far(tmp_path / "store")


@pytest.fixture
def cache(tmp_path: Path) -> Directory:
    return Directory(tmp_path / "cache")


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    return JobFolder(tmp_path / "job")


def test_a_blob_is_fetched_once_and_linked_after(store: Far, cache: Directory, tmp_path: Path) -> None:
    digest = store.put([b"teacher"])
    first, second = JobFolder(tmp_path / "first"), JobFolder(tmp_path / "second")
    stage({"in/teacher.safetensors": digest}, store, cache, first, tick=nothing)
    store.path(digest).unlink()
    stage({"in/teacher.safetensors": digest}, store, cache, second, tick=nothing)
    staged = second.path / "in" / "teacher.safetensors"
    assert staged.read_bytes() == b"teacher"
    assert staged.samefile(cache.path(digest))


def test_a_cached_blob_that_went_bad_is_fetched_again(store: Far, cache: Directory, folder: JobFolder) -> None:
    digest = store.put([b"teacher"])
    cache.put([b"teacher"])
    cache.path(digest).write_bytes(b"t0acher")
    stage({"in/teacher.safetensors": digest}, store, cache, folder, tick=nothing)
    assert (folder.path / "in" / "teacher.safetensors").read_bytes() == b"teacher"


def test_staging_again_after_an_interruption_finds_what_lies_there(store: Far, cache: Directory, folder: JobFolder) -> None:
    digest = store.put([b"teacher"])
    for _ in range(2):
        stage({"in/teacher.safetensors": digest}, store, cache, folder, tick=nothing)
    assert (folder.path / "in" / "teacher.safetensors").read_bytes() == b"teacher"


def test_a_blob_that_is_a_file_on_this_disk_is_linked_and_not_cached(cache: Directory, folder: JobFolder, tmp_path: Path) -> None:
    near, ticks = Near(tmp_path / "store"), list[None]()
    digest = near.put([b"dataset"])
    for _ in range(2):
        stage({"in/data": digest}, near, cache, folder, tick=lambda: ticks.append(None))
    assert (folder.path / "in" / "data").samefile(near.path(digest))
    assert (list(cache.folder.glob("??/*")), len(ticks)) == ([], 2)


def test_a_linked_file_that_went_bad_is_not_used(cache: Directory, folder: JobFolder, tmp_path: Path) -> None:
    near = Near(tmp_path / "store")
    digest = near.put([b"dataset"])
    near.path(digest).write_bytes(b"d0taset")
    with pytest.raises(Corrupt):
        stage({"in/data": digest}, near, cache, folder, tick=nothing)


def test_a_file_on_another_disk_comes_through_the_cache(
    cache: Directory, folder: JobFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    near = Near(tmp_path / "store")
    digest = near.put([b"dataset"])
    link = os.link

    def far(source: Path, target: Path) -> None:
        if source == near.path(digest):
            raise OSError(errno.EXDEV, "another disk")
        link(source, target)

    monkeypatch.setattr(os, "link", far)
    stage({"in/data": digest}, near, cache, folder, tick=nothing)
    assert (folder.path / "in" / "data").samefile(cache.path(digest))


def test_a_copy_ends_where_the_tick_says_so(store: Far, cache: Directory, folder: JobFolder) -> None:
    digest = store.put([b"teacher"])

    def tick() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        stage({"in/teacher.safetensors": digest}, store, cache, folder, tick=tick)
    assert not cache.path(digest).exists()
    assert list(cache.folder.glob(".part-*")) == []


def test_pruning_takes_what_was_used_longest_ago(cache: Directory, store: Far, folder: JobFolder) -> None:
    digests = [cache.put([bytes([i]) * 1000]) for i in range(4)]
    stage({"in/x": digests[0]}, store, cache, folder, tick=nothing)  # used just now
    prune(cache, 2500)
    assert [cache.path(digest).exists() for digest in digests] == [True, False, False, True]
    assert (folder.path / "in" / "x").read_bytes() == bytes(1000)


def test_a_file_with_other_bytes_than_promised_is_not_kept(store: Far, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    with pytest.raises(Corrupt, match="other bytes than the child said"):
        keep(path, "0" * 64, store, tick=nothing)


@pytest.mark.parametrize("told", ["../elsewhere", "/etc/hostname", "out/link", "out", "out/nothing"])
def test_only_files_of_the_folder_are_taken(folder: JobFolder, tmp_path: Path, told: str) -> None:
    (tmp_path / "elsewhere").write_text("secret")
    (folder.path / "out" / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Corrupt):
        folder.file(told)


def test_the_log_of_a_child_that_floods_it_is_cut_back_to_its_tail(folder: JobFolder) -> None:
    log = folder.path / "child.log"
    log.write_bytes(b"x" * LOG_LIMIT + b"\nthe\x00 end")
    folder.bound_log()
    assert log.stat().st_size < TAIL + 100
    assert folder.tail().endswith("\nthe end")


def test_a_new_worker_removes_the_folders_of_dead_workers_and_not_those_of_living_ones(tmp_path: Path) -> None:
    living = Home(tmp_path / "jobs", "wrk_living")
    kept = living.folder("job_a", 1)
    dead = tmp_path / "jobs" / "wrk_dead" / "job_b.1"
    dead.mkdir(parents=True)
    (dead / "pid").write_text("1 some boot and some tick")
    new = Home(tmp_path / "jobs", "wrk_new")
    assert kept.path.is_dir()
    assert not dead.parent.exists()
    new.close()
    living.close()
    assert list((tmp_path / "jobs").iterdir()) == []
