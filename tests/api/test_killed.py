"""The API is killed in the middle of an upload; started again, it goes on from what was kept, and the bytes are the same."""

import hashlib
import random
import signal
from pathlib import Path

import httpx
import pytest

from db.access import create_key, create_tenant
from db.blobs import Blobs
from db.places import CHUNK
from db.session import connect
from tests.api.test_main import PATIENCE, Environment, environment, serving

__all__ = ["environment"]

DATA = random.Random(4).randbytes(13 * CHUNK + 99)
"""Three batches and a piece."""


@pytest.mark.parametrize(
    ("dialect", "has_directory", "crash", "kept"),
    [
        pytest.param("postgresql", False, "upload.middle:2", 8 * CHUNK, marks=pytest.mark.servers),
        pytest.param("sqlite", True, "upload.before_ready", len(DATA)),
    ],
)
def test_an_upload_outlives_the_sigkill_of_the_api(
    environment: Environment, tmp_path: Path, *, has_directory: bool, crash: str, kept: int
) -> None:
    blobs = tmp_path / "blobs" if has_directory else None
    environment |= {"RETORT_BLOBS": str(blobs)} if blobs else {}
    database = connect(environment["RETORT_DATABASE_URL"], directory=blobs)
    tenant = create_tenant(database, "ada")
    key = create_key(database, tenant, name="test")
    digest = hashlib.sha256(DATA).hexdigest()
    headers = {"Authorization": f"Bearer {key}"}
    part = {**headers, "Upload-Complete": "?1", "Content-Type": "application/partial-upload"}
    with serving(environment | {"RETORT_CRASH": crash}, tmp_path / "log") as (process, url):
        body = {"purpose": "teacher", "filename": "t", "bytes": len(DATA), "sha256": digest}
        content = f"/v1/uploads/{httpx.post(f'{url}/v1/uploads', json=body, headers=headers, trust_env=False).json()['id']}/content"
        with pytest.raises(httpx.TransportError):
            httpx.patch(url + content, content=DATA, headers={**part, "Upload-Offset": "0"}, timeout=PATIENCE, trust_env=False)
        assert process.wait(PATIENCE) == -signal.SIGKILL
    with serving(environment, tmp_path / "log") as (_, url):
        offset = int(httpx.head(url + content, headers=headers, trust_env=False).headers["Upload-Offset"])
        assert offset == kept
        answer = httpx.patch(
            url + content, content=DATA[offset:], headers={**part, "Upload-Offset": str(offset)}, timeout=PATIENCE, trust_env=False
        )
        assert (answer.status_code, answer.json()["status"]) == (200, "completed"), answer.text
    assert b"".join(Blobs(database, tenant).get(digest)) == DATA
    database.close()
