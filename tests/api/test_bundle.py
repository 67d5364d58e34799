"""The bundle: all files of a job as one zip that other programs read, always the same bytes, in one go or in pieces."""

import io
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from api.bundle import bundle
from db import assets
from db.session import Database
from tests.api.lab import ONE_DATABASE, Lab, User, finished

CARD, LARGE = b"# a card\n", bytes(range(256)) * 8192 + b"and some more"
FILES = {
    ("onnx", "README.md"): b"# another card\n",
    ("onnx", "SHA256SUMS"): b"of some\n",
    ("onnx", "config.json"): b"{}\n",
    ("onnx", "model.onnx"): b"graph",
    ("safetensors", "README.md"): CARD,
    ("safetensors", "SHA256SUMS"): b"of others\n",
    ("safetensors", "config.json"): b"{}\n",
    ("safetensors", "model.safetensors"): LARGE,
}


@pytest.fixture
def job(http: httpx.Client, user: User, submitted: dict[str, Any], database: Database) -> str:
    """A job that left two formats, which have three names in common."""
    finished(database, user, submitted["id"], FILES)
    return str(submitted["id"])


def test_other_programs_unpack_it_and_find_every_file_whole(http: httpx.Client, job: str, tmp_path: Path) -> None:
    answer = http.get(f"/v1/jobs/{job}/bundle")
    assert answer.headers["Content-Type"] == "application/zip"
    assert f'filename="{job}.zip"' in answer.headers["Content-Disposition"]
    (tmp_path / "all.zip").write_bytes(answer.content)
    subprocess.run([sys.executable, "-m", "zipfile", "-e", "all.zip", "all"], cwd=tmp_path, check=True)
    unpacked = {
        path.relative_to(tmp_path / "all").as_posix(): path.read_bytes() for path in (tmp_path / "all").rglob("*") if path.is_file()
    }
    sums = unpacked.pop("SHA256SUMS").decode()
    assert unpacked == {
        "README.md": CARD,
        "onnx/README.md": b"# another card\n",
        "config.json": b"{}\n",
        "model.onnx": b"graph",
        "model.safetensors": LARGE,
    }
    assert [line.split("  ")[1] for line in sums.splitlines()] == sorted(unpacked)
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=tmp_path / "all", check=True)


def test_where_a_file_lies_in_it_stands_on_the_files_card(http: httpx.Client, job: str) -> None:
    listed = http.get(f"/v1/jobs/{job}/artifacts").json()["data"]
    paths = {(each["format"], each["name"]): each["path"] for each in listed}
    names = set(zipfile.ZipFile(io.BytesIO(http.get(f"/v1/jobs/{job}/bundle").content)).namelist())
    assert {path for path in paths.values() if path} == names - {"SHA256SUMS"}
    assert paths["onnx", "README.md"] == "onnx/README.md"
    assert paths["safetensors", "config.json"] == paths["onnx", "config.json"] == "config.json"
    assert paths["safetensors", "SHA256SUMS"] is None
    assert http.get(f"/v1/artifacts/{listed[0]['id']}").json() == listed[0]


def test_it_is_the_same_every_time_and_any_part_is_a_part_of_it(http: httpx.Client, job: str) -> None:
    path = f"/v1/jobs/{job}/bundle"
    whole, look = http.get(path), http.head(path)
    assert look.content == b""
    assert {name: look.headers[name] for name in ("ETag", "Content-Length")} == {
        "ETag": whole.headers["ETag"],
        "Content-Length": str(len(whole.content)),
    }
    assert http.get(path).content == whole.content
    for start in (1, 1000, 1 << 20, len(whole.content) - 30):
        rest = http.get(path, headers={"Range": f"bytes={start}-", "If-Range": whole.headers["ETag"]})
        assert (rest.status_code, rest.content) == (206, whole.content[start:])
    assert http.get(path, headers={"If-None-Match": whole.headers["ETag"]}).status_code == 304


def test_a_part_of_it_is_the_same_from_a_service_that_has_not_read_the_files(
    http: httpx.Client, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = http.get(f"/v1/jobs/{job}/bundle").content
    monkeypatch.setattr("api.bundle._crcs", {})  # what a restart forgets
    assert http.get(f"/v1/jobs/{job}/bundle", headers={"Range": "bytes=-300"}).content == whole[-300:]


def test_a_damaged_file_never_arrives(http: httpx.Client, job: str, database: Database) -> None:
    with database.begin() as tx:
        tx.execute(sa.text("UPDATE blob_chunk SET data = :data WHERE i = 1"), {"data": bytes(1 << 20)})
    with pytest.raises(httpx.RemoteProtocolError):
        http.get(f"/v1/jobs/{job}/bundle")


def test_a_job_without_files_has_none_yet(http: httpx.Client, submitted: dict[str, Any]) -> None:
    answer = http.get(f"/v1/jobs/{submitted['id']}/bundle")
    assert (answer.status_code, answer.json()["code"], answer.json()["current_status"]) == (409, "no_artifacts", "queued")


def test_a_file_whose_name_leads_elsewhere_stays_inside(
    http: httpx.Client, user: User, submitted: dict[str, Any], database: Database
) -> None:
    names = ["../up", "/root", "a/../../b", "c\\d", "e\nf", "..", "C:x"]
    finished(database, user, submitted["id"], {("safetensors", name): name.encode() for name in names})
    read = zipfile.ZipFile(io.BytesIO(http.get(f"/v1/jobs/{submitted['id']}/bundle").content))
    assert {name: read.read(name) for name in read.namelist() if name != "SHA256SUMS"} == {
        "up": b"../up", "root": b"/root", "a/b": b"a/../../b", "c_d": b"c\\d", "e_f": b"e\nf", "_": b"..", "C_x": b"C:x",
    }  # fmt: skip
    assert len(read.read("SHA256SUMS").splitlines()) == len(names)


def test_another_tenant_has_no_bundle_of_it(users: Any, job: str) -> None:
    assert users("eve").http.get(f"/v1/jobs/{job}/bundle").status_code == 404


def test_the_same_files_have_the_same_tag_and_others_another(
    http: httpx.Client, user: User, lab: Lab, job: str, database: Database
) -> None:
    def tag_of(files: dict[tuple[str, str], bytes]) -> str:
        id = http.post("/v1/jobs", json=lab.spec(seed=1)).json()["id"]
        finished(database, user, id, files)
        return str(http.head(f"/v1/jobs/{id}/bundle").headers["ETag"])

    tag = http.head(f"/v1/jobs/{job}/bundle").headers["ETag"]
    assert tag_of(FILES) == tag
    assert tag_of({**FILES, ("onnx", "model.onnx"): b"GRAPH"}) != tag
    assert tag_of({name: content for name, content in FILES.items() if name != ("onnx", "model.onnx")}) != tag


@ONE_DATABASE
def test_it_is_made_in_a_few_mebibytes_of_memory(http: httpx.Client, user: User, submitted: dict[str, Any], database: Database) -> None:
    large = 48 << 20
    finished(database, user, submitted["id"], {("safetensors", "model.safetensors"): bytes(large)})
    made = bundle(database, user.tenant, assets.list_artifacts(database, user.tenant, submitted["id"]), name="all")
    tracemalloc.start()
    try:
        came = sum(map(len, made.read(0, made.size)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert came == made.size > large
    assert peak < 8 << 20
