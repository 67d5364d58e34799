"""Artifacts: what a job made, and its bytes, whole or not at all."""

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from db.session import Database
from tests.api.lab import User, finished

MIB = 1 << 20
DATA = bytes(range(256)) * 4096 * 3 + b"end"


@pytest.fixture
def artifact(http: httpx.Client, user: User, submitted: dict[str, Any], database: Database) -> dict[str, Any]:
    """The one file that a job made: three mebibytes and three bytes."""
    finished(database, user, submitted["id"], {("safetensors", "модель.safetensors"): DATA})
    [card] = http.get(f"/v1/jobs/{submitted['id']}/artifacts").json()["data"]
    found: dict[str, Any] = card
    return found


def test_an_artifact_is_told_with_how_it_was_verified(http: httpx.Client, artifact: dict[str, Any]) -> None:
    assert (artifact["format"], artifact["bytes"], artifact["facts"]) == ("safetensors", len(DATA), {"top1_agreement": 1.0})
    assert http.get(f"/v1/artifacts/{artifact['id']}").json() == artifact


def test_its_bytes_are_what_its_digest_says(http: httpx.Client, artifact: dict[str, Any]) -> None:
    answer = http.get(artifact["content"])
    assert answer.status_code == 200
    assert hashlib.sha256(answer.content).hexdigest() == artifact["sha256"]
    assert answer.headers["ETag"] == f'"{artifact["sha256"]}"'
    assert answer.headers["Content-Length"] == str(len(DATA))
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"].startswith("attachment; ")
    assert "filename*=UTF-8''%D0%BC" in answer.headers["Content-Disposition"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_look_has_the_headers_and_no_bytes(http: httpx.Client, artifact: dict[str, Any]) -> None:
    look, whole = http.head(artifact["content"]), http.get(artifact["content"])
    assert look.content == b""
    for name in ("ETag", "Content-Length", "Content-Disposition", "Content-Type"):
        assert look.headers[name] == whole.headers[name]


def test_who_has_the_bytes_need_not_fetch_them(http: httpx.Client, artifact: dict[str, Any]) -> None:
    answer = http.get(artifact["content"], headers={"If-None-Match": f'"other", "{artifact["sha256"]}"'})
    assert (answer.status_code, answer.content) == (304, b"")


@pytest.mark.parametrize("start", [1, MIB - 1, MIB, MIB + 1, 3 * MIB, len(DATA) - 1])
def test_a_download_is_taken_up_where_it_broke_off(start: int, http: httpx.Client, artifact: dict[str, Any]) -> None:
    tag = f'"{artifact["sha256"]}"'
    rest = http.get(artifact["content"], headers={"Range": f"bytes={start}-", "If-Range": tag})
    assert (rest.status_code, rest.headers["Content-Range"]) == (206, f"bytes {start}-{len(DATA) - 1}/{len(DATA)}")
    assert DATA[:start] + rest.content == DATA


def test_curl_takes_a_download_up_where_it_broke_off(http: httpx.Client, user: User, artifact: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA[:MIB])
    key, url = user.headers["Authorization"], f"{http.base_url}{artifact['content']}"
    command = ["curl", "--silent", "--show-error", "--fail", "-C", "-", "-H", f"Authorization: {key}", "-o", "file", url]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
    assert (tmp_path / "file").read_bytes() == DATA


def test_a_file_that_is_dangerous_to_open_says_so(
    http: httpx.Client, user: User, submitted: dict[str, Any], database: Database, artifact: dict[str, Any]
) -> None:
    assert artifact["warning"] is None
    job = http.post(f"/v1/jobs/{submitted['id']}/clone").json()["id"]
    finished(database, user, job, {("torch_export", "model.pt2"): b"pickle"}, facts={"warning": "loading it unpickles"})
    [card] = http.get(f"/v1/jobs/{job}/artifacts").json()["data"]
    assert card["warning"] == "loading it unpickles"


def test_damaged_bytes_never_arrive_whole(http: httpx.Client, artifact: dict[str, Any], database: Database) -> None:
    with database.begin() as tx:
        tx.execute(sa.text("UPDATE blob_chunk SET data = :data WHERE i = 1"), {"data": bytes(1 << 20)})
    with pytest.raises(httpx.RemoteProtocolError):
        http.get(artifact["content"])
