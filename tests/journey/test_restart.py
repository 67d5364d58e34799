"""A service that is stopped hands its running jobs back, a killed one leaves them: both times they go on at the next start."""

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retort import Client
from tests.retort.service import call, up, wait_until

pytestmark = pytest.mark.journey

STUDENT = '{"family": "mlp", "hidden": [16], "input": [1, 8, 8], "classes": 2}'


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)], ids=["stopped", "killed"])
def test_a_job_that_ran_when_the_service_ended_goes_on_at_the_next_start(tmp_path: Path, number: int, code: int) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (256, 8, 8), dtype=np.uint8), np.arange(256) % 2
    np.savez(tmp_path / "noise.npz", x=x, y=y)
    folder = tmp_path / "data"

    def asked(*words: str) -> Any:
        ended = call(*words, "--json", env={"RETORT_DATA": str(folder)})
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    def steps(client: Client, job: str) -> int:
        found = client.jobs.get(job)
        assert not found.is_terminal, found.raw
        return int(found.progress.get("step", 0)) if found.status == "running" and found.phase == "train" else 0

    with up(folder) as service, client_of(folder) as client:
        student, dataset = asked("upload", "architecture", STUDENT)["id"], asked("upload", "dataset", str(tmp_path / "noise.npz"))["id"]
        job = asked("submit", "--student", student, "--dataset", dataset, "--epochs", "100000")["id"]
        wait_until(lambda: steps(client, job) > 100)
        reached = steps(client, job)
        assert service.ends(number)[0] == code
    with up(folder), client_of(folder) as client:  # a killed one left a lease, which runs out first
        assert client.jobs.get(job).status in ("queued", "running")
        wait_until(lambda: len(client.jobs.get(job).attempts()) == 2 and steps(client, job) > 0)
        if code == 0:  # else there may be no checkpoint yet
            assert steps(client, job) >= reached
        asked("cancel", job)
        assert client.jobs.get(job).wait(timeout=60).status == "cancelled"


def client_of(folder: Path) -> Client:
    known = json.loads((folder / "service.json").read_text())
    return Client(known["url"], key=known["key"])
