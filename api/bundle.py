"""A job's files as one zip, laid out as a repository of the Hugging Face Hub, with the checksums of all of them."""

import hashlib
import re
import threading
import zlib
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from api.sending import Representation
from api.zipped import Member, Zip
from db.access import Tenant
from db.assets import Artifact
from db.blobs import Blobs
from db.session import Database

SUMS = "SHA256SUMS"
DOCUMENTS = "card"
"""The format of the model card and what belongs to it, which each job writes of all formats that are there by then."""
_REMEMBERED = 10_000
_crcs: dict[tuple[str, str], int] = {}
"""The CRC-32 of what was read once, by tenant and digest: a zip wants it, and the bytes of a digest never change."""
_remembering = threading.Lock()


def layout(artifacts: Sequence[Artifact]) -> dict[str, str]:
    """The path of each file in the bundle, by the artifact's id. It is its name; where another file has that, it lies in a folder named
    after its format, unless it is the same file.

    Of the documents those of the last job stand, which know all formats; older ones have no path. Nor have checksums of some files: the
    bundle has its own, of all.
    """
    placed: dict[str, str] = {}
    paths: dict[str, str] = {}
    documents = [each for each in artifacts if each.format == DOCUMENTS]
    last = max((each.job for each in documents), default="")
    files = sorted((each for each in artifacts if each.format != DOCUMENTS), key=lambda each: each.format != "safetensors")
    for artifact in [*(each for each in documents if each.job == last), *files]:
        name = _harmless(artifact.name)
        if name == SUMS:
            continue
        for path in (name, f"{artifact.format}/{name}", f"{artifact.job}/{artifact.format}/{name}"):
            if placed.setdefault(path, artifact.sha256) == artifact.sha256:
                paths[artifact.id] = path
                break
    return paths


def bundle(database: Database, tenant: Tenant, artifacts: Sequence[Artifact], *, name: str) -> Representation:
    """The zip of these files, `name`.zip. Its tag follows from their paths and digests, and so does every byte of it."""
    blobs = Blobs(database, tenant)
    paths = layout(artifacts)
    placed = sorted({paths[each.id]: each for each in artifacts if each.id in paths}.items())
    sums = "".join(f"{artifact.sha256}  {path}\n" for path, artifact in placed).encode()
    members = [_member(blobs, tenant, path, artifact) for path, artifact in placed]
    members.append(Member(SUMS, len(sums), lambda: zlib.crc32(sums), lambda start, stop: iter([sums[start:stop]])))
    zipped = Zip(members)
    tag = hashlib.sha256(b"stored zip, 1\n" + sums).hexdigest()
    return Representation(f"{name}.zip", "application/zip", tag, zipped.size, None, zipped.read)


def _member(blobs: Blobs, tenant: Tenant, path: str, artifact: Artifact) -> Member:
    def read(start: int, stop: int) -> Iterator[bytes]:
        return blobs.get(artifact.sha256, start=start, stop=stop)

    def crc() -> int:
        key = (tenant.id, artifact.sha256)
        found = _crcs.get(key)
        if found is None:
            found = 0
            for chunk in blobs.get(artifact.sha256):
                found = zlib.crc32(chunk, found)
            with _remembering:
                while len(_crcs) >= _REMEMBERED:
                    del _crcs[next(iter(_crcs))]
                _crcs[key] = found
        return found

    return Member(path, artifact.bytes, crc, read)


def _harmless(name: str) -> str:
    """The name as a path that every system can unpack, and only into the folder."""
    parts = PurePosixPath(re.sub(r"[\x00-\x1f\x7f\\:]", "_", name)).parts
    return "/".join(part for part in parts if part not in ("/", "//", "..")) or "_"
