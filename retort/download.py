"""Fetching a file: into a part beside its place, from where an earlier try broke off, verified by its digest, then renamed."""

import glob
import hashlib
import os
import re
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from retort.connection import Connection, pause
from retort.errors import Corrupted, Misused, Unreachable
from retort.values import Artifact

Progress = Callable[[int, int], None]
"""Called with the bytes that came over and the bytes in all."""

SUMS = "SHA256SUMS"
_CHUNK = 1 << 20
_ATTEMPTS = 3
"""So many times in a row a line may break before a byte came."""


def download(connection: Connection, artifact: Artifact, folder: Path, *, progress: Progress | None = None) -> Path:
    """Where the artifact's verified bytes lie now: `folder` and the artifact's own path.

    A file that is there already with the right digest is left as it is, and what came of it earlier is not fetched again. `Corrupted` where
    the bytes are not what the digest says, `Unreachable` where the line breaks again and again: nothing new lies under the final name then,
    and what came waits beside it for the next call.
    """
    target = folder / _inside(artifact.path or artifact.name)
    with _writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_file() and _digest(target) == artifact.sha256:
            if progress:
                progress(artifact.bytes, artifact.bytes)
            return target
        part = _fetched(
            connection, f"/v1/artifacts/{artifact.id}/content", target, tag=artifact.sha256, size=artifact.bytes, progress=progress
        )
        found = _digest(part)
        if found != artifact.sha256:
            came = part.stat().st_size
            part.unlink()
            raise Corrupted(f"{artifact.name}: {came} bytes came with the digest {found}, the service promised {artifact.sha256}")
        part.replace(target)
    return target


def download_bundle(connection: Connection, job: str, folder: Path, *, progress: Progress | None = None) -> Path:
    """Where the zip of all files of a job lies now, every file in it verified by its digest. Errors as for `download`, `ApiError` where
    the job has no files."""
    path = f"/v1/jobs/{job}/bundle"
    with connection.open("HEAD", path) as look:
        tag, size = look.headers["ETag"].strip('"'), int(look.headers["Content-Length"])
    target = folder / f"{job}.zip"
    with _writing(target):
        folder.mkdir(parents=True, exist_ok=True)
        part = _fetched(connection, path, target, tag=tag, size=size, progress=progress)
        try:
            _check_bundle(part)
        except Corrupted:
            part.unlink()
            raise
        part.replace(target)
    return target


def write_sums(artifacts: Sequence[Artifact], folder: Path) -> Path:
    """Where the checksums of these files lie, as `sha256sum -c` reads them: the folder is then what the bundle unpacks to."""
    sums = folder / SUMS
    lines = {each.path: f"{each.sha256}  {each.path}\n" for each in artifacts if each.path}
    with _writing(sums):
        sums.write_text("".join(lines[path] for path in sorted(lines)), encoding="utf-8")
    return sums


def _fetched(connection: Connection, path: str, target: Path, *, tag: str, size: int, progress: Progress | None) -> Path:
    """The part with all `size` bytes of the version `tag`. A try that brings something is followed by another, however often."""
    part = target.with_name(f".{target.name}.{tag[:16]}.part")
    for old in target.parent.glob(f".{glob.escape(target.name)}.*.part"):
        if old != part and re.fullmatch(r"[0-9a-f]{16}", old.name.split(".")[-2]):
            old.unlink(missing_ok=True)  # of a version that is no more
    failed = 0
    while True:
        came = _length(part)
        if came > size:
            part.unlink()
            came = 0
        try:
            if came < size or not part.exists():
                _go_on(connection, path, part, came, tag=tag, size=size, progress=progress)
            return part
        except Unreachable as broken:
            failed = 0 if _length(part) > came else failed + 1
            if failed == _ATTEMPTS:
                hint = f"{_length(part)} of {size} bytes are kept: the same call again goes on from there"
                raise Unreachable(str(broken), url=broken.url, hint=hint) from broken
            time.sleep(pause(failed))


def _go_on(connection: Connection, path: str, part: Path, came: int, *, tag: str, size: int, progress: Progress | None) -> None:
    """Add to the part what it lacks; from the start where the service sends the whole, because it has another version by now."""
    asked = {"Range": f"bytes={came}-", "If-Range": f'"{tag}"'} if came else {}
    headers = {"Accept-Encoding": "identity", **asked}
    with part.open("ab") as file, connection.open("GET", path, headers=headers) as response:
        if response.status_code != 206 or not response.headers.get("Content-Range", "").startswith(f"bytes {came}-"):
            file.truncate(0)
            came = 0
        for chunk in response.iter_bytes():  # as they come: what came before the line breaks is not lost
            file.write(chunk)
            came += len(chunk)
            if progress:
                progress(came, size)
        file.flush()
        os.fsync(file.fileno())


def _check_bundle(path: Path) -> None:
    """`Corrupted` where the zip is none, or holds other files than its checksums say."""
    try:
        with zipfile.ZipFile(path) as bundle:
            sums: dict[str, str] = {}
            for line in bundle.read(SUMS).decode().splitlines():
                digest, _, name = line.partition("  ")
                sums[name] = digest
            names = [name for name in bundle.namelist() if name != SUMS]
            if sorted(names) != sorted(sums):
                raise Corrupted(f"the bundle holds {sorted(names)}, its {SUMS} names {sorted(sums)}")
            for name in names:
                hasher = hashlib.sha256()
                with bundle.open(name) as file:
                    while chunk := file.read(_CHUNK):
                        hasher.update(chunk)
                if hasher.hexdigest() != sums[name]:
                    raise Corrupted(f"{name} in the bundle has another digest than its {SUMS} says")
    except (zipfile.BadZipFile, KeyError, ValueError) as wrong:
        raise Corrupted(f"what came is no whole bundle: {wrong}") from wrong


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """`Misused`, with the file named, where it cannot be written."""
    try:
        yield
    except OSError as wrong:
        raise Misused(f"cannot write {target}: {wrong.strerror or wrong}") from wrong


def _inside(name: str) -> PurePosixPath:
    """The name as a relative path that cannot leave its folder; `Corrupted` for any other."""
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise Corrupted(f"the service named a file {name!r}, which would lie outside the folder")
    return path


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
