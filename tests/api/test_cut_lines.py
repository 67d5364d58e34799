"""The client and the service together, over a line that is reset again and again: what comes out is byte for byte what was stored."""

import io
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest

from db.session import Database
from retort import Client
from tests.api.lab import ONE_DATABASE, User, finished
from tests.chaos.proxy import proxied

WEIGHTS = bytes(range(256)) * 4 * 4096 + b"the end"

pytestmark = ONE_DATABASE


def test_files_and_bundles_come_whole_over_a_line_that_is_reset_every_half_mebibyte(
    user: User, submitted: dict[str, Any], database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = str(user.http.base_url)
    monkeypatch.setattr("retort.download.time.sleep", lambda seconds: None)
    finished(database, user, submitted["id"], {("safetensors", "model.safetensors"): WEIGHTS, ("card", "README.md"): b"# card\n"})
    with proxied(service) as proxy, Client(proxy.url(service), key=user.key) as client:
        job = client.jobs.get(submitted["id"])
        listed = job.artifacts()
        proxy.switch("limit", 1 << 19, way="down")
        with pytest.raises(httpx.TransportError):  # so a line cannot carry a file at once
            httpx.get(proxy.url(f"{service}/v1/artifacts/{listed[1].id}/content"), headers=user.headers, trust_env=False)
        paths = job.download(tmp_path / "files")
        bundle = job.download_bundle(tmp_path)
    assert {path.name for path in paths} == {"model.safetensors", "README.md", "SHA256SUMS"}
    assert (tmp_path / "files" / "model.safetensors").read_bytes() == WEIGHTS
    with zipfile.ZipFile(io.BytesIO(bundle.read_bytes())) as read:
        assert {name: read.read(name) for name in read.namelist()} == {path.name: path.read_bytes() for path in paths}
    assert sorted(path.name for path in tmp_path.rglob("*.part")) == []
