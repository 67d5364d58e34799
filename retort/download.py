"""Fetching a file: streamed to a temporary name beside its place, verified by its digest, then renamed."""

import hashlib
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from retort.connection import Connection, pause
from retort.errors import Corrupted, Misused, Unreachable
from retort.values import Artifact

Progress = Callable[[int, int], None]
"""Called with the bytes that came over and the bytes in all."""

_CHUNK = 1 << 20
_ATTEMPTS = 3


def download(connection: Connection, artifact: Artifact, folder: Path, *, progress: Progress | None = None) -> Path:
    """Where the artifact's verified bytes lie now: `folder` and the artifact's own name.

    A file that is there already with the right digest is left as it is. `Corrupted` where the bytes are not what the digest
    says, `Unreachable` where the line breaks again and again; in both cases nothing new lies under the final name.
    """
    target = folder / _inside(artifact.name)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_file() and _digest(target) == artifact.sha256:
            if progress:
                progress(artifact.bytes, artifact.bytes)
            return target
        for attempt in range(_ATTEMPTS):
            try:
                return _fetch(connection, artifact, target, progress)
            except Unreachable:
                if attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(pause(attempt))
    except OSError as wrong:
        raise Misused(f"cannot write {target}: {wrong.strerror or wrong}") from wrong
    raise AssertionError("the last attempt returns or raises")


def _fetch(connection: Connection, artifact: Artifact, target: Path, progress: Progress | None) -> Path:
    hasher = hashlib.sha256()
    came = 0
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file, connection.open("GET", f"/v1/artifacts/{artifact.id}/content") as response:
            for chunk in response.iter_bytes(_CHUNK):
                hasher.update(chunk)
                file.write(chunk)
                came += len(chunk)
                if progress:
                    progress(came, artifact.bytes)
            file.flush()
            os.fsync(file.fileno())
        if hasher.hexdigest() != artifact.sha256:
            raise Corrupted(
                f"{artifact.name}: {came} bytes came with the digest {hasher.hexdigest()}, the service promised {artifact.sha256}"
            )
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def _inside(name: str) -> PurePosixPath:
    """The name as a relative path that cannot leave its folder; `Corrupted` for any other."""
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise Corrupted(f"the service named a file {name!r}, which would lie outside the folder")
    return path


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
