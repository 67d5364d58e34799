"""A sweep of real jobs goes on where it was after the whole service was killed, and ends with every trial once."""

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
SWEEP = """
name: noise
base:
  student: {{architecture: {student}}}
  dataset: {{id: {dataset}, validation: 0.25}}
  recipe: {{epochs: 3, batch_size: 32}}
space:
  recipe.optimizer.lr: {{choice: [0.1, 100]}}
  recipe.optimizer.weight_decay: {{choice: [0, 1]}}
strategy: grid
max_parallel: 1
seeds: 2
"""


def test_a_sweep_that_was_killed_with_its_service_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 100, (256, 8, 8), dtype=np.uint8), np.arange(256) % 2
    x[y == 1, :4] += 100  # half of the images are brighter above: there is something to learn
    np.savez(tmp_path / "halves.npz", x=x, y=y)
    folder = tmp_path / "data"

    def asked(*words: str) -> Any:
        ended = call(*words, "--json", env={"RETORT_DATA": str(folder)})
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    with up(folder) as service:
        student, dataset = asked("upload", "architecture", STUDENT)["id"], asked("upload", "dataset", str(tmp_path / "halves.npz"))["id"]
        (tmp_path / "sweep.yaml").write_text(SWEEP.format(student=student, dataset=dataset))
        id = asked("sweep", str(tmp_path / "sweep.yaml"))["id"]
        with client_of(folder) as client:
            wait_until(lambda: any(each["outcome"] != "unfinished" for each in client.sweeps.get(id).trials()))
            before = client.sweeps.get(id).trials()
        assert service.ends(signal.SIGKILL)[0] == -signal.SIGKILL
    assert len(before) < 6
    with up(folder), client_of(folder) as client:
        ended = asked("watch", id)
        assert [(each["trial"], each["role"]) for each in ended["trials"]] == [(n, "trial" if n < 4 else "rerun") for n in range(6)]
        assert [each["job"] for each in ended["trials"]][: len(before)] == [each["job"] for each in before]
        assert len(list(client.jobs.list())) == 6
        assert ended["trials"][3]["problem"]["code"] == "diverged"  # a step of rate 100 multiplies the weights by -99
        best, again = ended["result"]["best"], ended["result"]["reruns"]
        values = [each["value"] for each in ended["trials"] if each["role"] == "trial" and each["outcome"] == "completed"]
        assert best["value"] == max(values)
        assert (again["n"], again["seeds"], again["test_accuracy"]["n"]) == (2, [1, 2], 2)
        measured = client.jobs.get(again["jobs"][0]).result["test"]["accuracy"]
        assert again["test_accuracy"]["values"][0] == measured


def client_of(folder: Path) -> Client:
    known = json.loads((folder / "service.json").read_text())
    return Client(known["url"], key=known["key"])
