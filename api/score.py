"""How good a job's teacher is on the job's dataset, as far as that was measured, and whether it is worth learning from."""

from dataclasses import dataclass
from typing import Any

from api.deps import Service
from api.named import Network
from api.scores import LabelMap, teacher_score
from db.access import Tenant
from db.assets import Asset

_DEVIATIONS = 3


@dataclass(frozen=True, slots=True)
class Score:
    """What was measured, and what is to be said of it."""

    values: dict[str, Any]
    warning: str | None


def score(running: Service, tenant: Tenant, teacher: Network, dataset: Asset, label_map: LabelMap = None) -> Score | None:
    """The score of a teacher, None where nobody measured it on this dataset."""
    found = _of_job(teacher, dataset) if teacher.asset is None else teacher_score(running, tenant, teacher.asset, dataset, label_map)
    if found is None:
        return None
    warning = None
    if found["near_chance"]:
        warning = (
            f"the teacher's accuracy on this dataset is {found['accuracy']:.4f} (n = {found['n']}), near chance: "
            "are its normalization, the order of its classes and the layout of its inputs right?"
        )
    return Score(found, warning)


def _of_job(teacher: Network, dataset: Asset) -> dict[str, Any] | None:
    """What a finished job measured of its own student, where it was tested on the same data."""
    job = teacher.job
    if job is None or job.inputs["blobs"].get("in/dataset.safetensors") != dataset.blob or job.spec["dataset"].get("classes"):
        return None
    test = (job.result or {}).get("test") or {}
    if "accuracy" not in test or "n" not in test:
        return None
    chance = 1 / (dataset.report or {})["classes"]
    deviation = (chance * (1 - chance) / test["n"]) ** 0.5
    return {
        "dataset": dataset.id, "split": "test", "accuracy": test["accuracy"], "n": test["n"], "chance": chance,
        "near_chance": test["accuracy"] < chance + _DEVIATIONS * deviation, "job": job.id,
    }  # fmt: skip
