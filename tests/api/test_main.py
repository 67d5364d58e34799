"""`python -m api` as a process: it serves, makes keys, refuses to stand open, and ends when it should."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.servers import free_port

PATIENCE = 60.0
Environment = dict[str, str]


@pytest.fixture
def environment(database_url: str, tmp_path: Path) -> Environment:
    """What the process is told."""
    return {
        "PATH": os.environ["PATH"],
        "RETORT_DATABASE_URL": database_url,
        "RETORT_BROKER_URL": f"filesystem://{tmp_path / 'broker'}",
        "RETORT_DATA": str(tmp_path / "data"),
        "RETORT_PORT": str(free_port()),
    }


def run(environment: Environment, *words: str) -> subprocess.CompletedProcess[str]:
    """The command, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "api", *words], env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def make_key(environment: Environment) -> str:
    made = run(environment, "key", "--tenant", "ada", "--name", "laptop")
    assert made.returncode == 0, made.stderr
    key: str = json.loads(made.stdout)["key"]
    return key


@contextmanager
def serving(environment: Environment, log: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The process and its address, once it answers; it is ended at the end."""
    url = f"http://127.0.0.1:{environment['RETORT_PORT']}"
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-m", "api"], env=environment, stdout=file, stderr=file)
    try:
        until(lambda: process.poll() is not None or answers(url))
        assert process.poll() is None, log.read_text()
        yield process, url
    finally:
        process.kill()
        process.wait(PATIENCE)


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/livez", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_key_made_by_the_command_opens_the_door_until_sigterm_closes_it_cleanly(environment: Environment, tmp_path: Path) -> None:
    key = make_key(environment)
    log = tmp_path / "log"
    with serving(environment, log) as (process, url):
        headers = {"Authorization": f"Bearer {key}"}
        assert httpx.get(f"{url}/v1/me", headers=headers, trust_env=False).status_code == 200
        assert httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
        process.send_signal(signal.SIGTERM)
        # uvicorn ends its work, then lets the signal have its way.
        assert process.wait(PATIENCE) in {0, -signal.SIGTERM}
    text = log.read_text()
    assert key not in text
    assert "Traceback" not in text
    lines = [json.loads(line) for line in text.splitlines()]
    [access] = [line for line in lines if line.get("path") == "/v1/me"]
    assert access["status"] == 200
    assert access["request_id"].startswith("req_")


def test_a_service_without_any_key_serves_nobody(environment: Environment, tmp_path: Path) -> None:
    with serving(environment, tmp_path / "log") as (_, url):
        assert httpx.get(f"{url}/v1/me", trust_env=False).status_code == 401


def test_settings_that_are_missing_are_named(environment: Environment) -> None:
    del environment["RETORT_DATABASE_URL"]
    environment["RETORT_PORT"] = "many"
    refused = run(environment)
    assert refused.returncode == 2
    assert "RETORT_DATABASE_URL" in refused.stderr
    assert "RETORT_PORT" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_database_that_cannot_be_reached_is_said_in_one_sentence(environment: Environment, tmp_path: Path) -> None:
    environment["RETORT_DATABASE_URL"] = f"sqlite:///{tmp_path}/no/such/folder.db"
    refused = run(environment, "key", "--tenant", "t", "--name", "n")
    assert refused.returncode == 2
    assert "database" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_it_ends_with_its_parent(environment: Environment, tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "600"]) as stranger:
        environment["RETORT_PARENT"] = str(stranger.pid)
        orphan = subprocess.run([sys.executable, "-m", "api"], env=environment, timeout=PATIENCE, check=False)
        assert orphan.returncode == 99  # its parent is not the one that it was told
        stranger.kill()
    environment["RETORT_PARENT"] = str(os.getpid())
    with serving(environment, tmp_path / "log") as (_, url):
        assert answers(url)


def test_a_large_upload_stays_small_in_memory(environment: Environment, tmp_path: Path) -> None:
    size, chunk = 256 << 20, os.urandom(1 << 20)
    digest = hashlib.sha256()
    for _ in range(size >> 20):
        digest.update(chunk)
    headers = {"Authorization": f"Bearer {make_key(environment)}"}
    with (
        serving(environment, tmp_path / "log") as (process, url),
        httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=PATIENCE) as http,
    ):
        http.get("/v1/me").raise_for_status()
        before = peak(process.pid)
        declared = {"purpose": "dataset", "filename": "f", "bytes": size, "sha256": digest.hexdigest()}
        id = http.post("/v1/uploads", json=declared).raise_for_status().json()["id"]
        body = (chunk for _ in range(size >> 20))
        http.put(f"/v1/uploads/{id}/content", content=body, headers={"Content-Length": str(size)}).raise_for_status()
        assert peak(process.pid) - before < 64 << 20


def peak(pid: int) -> int:
    """The most memory that a process ever held, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
