"""A job folder with digits that nobody labelled: the real child trains, measures and exports a student that answers as its teacher."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from core.data import open_dataset, subset
from core.data.canonical import Writer
from core.data.report import UNLABELLED, DatasetReport
from core.job import Job
from core.networks import parse
from tests.core.folders import STUDENT, TEACHER, Ended, digits, fill, work

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
RECIPE: dict[str, Any] = {"epochs": 20, "batch_size": 32, "optimizer": {"name": "sgd", "lr": 0.05}}


def without_labels(path: Path) -> DatasetReport:
    """Write a dataset anew in its place, without its labels."""
    dataset = open_dataset(path)
    report = dataset.report
    stored = (*report.input[1:], report.input[0])
    lengths = {split: np.zeros(count, np.int64) for split, count in report.counts.items()}
    with Writer(path.with_suffix(".new"), sample=stored, dtype=report.dtype, labels=lengths, class_names=()) as writer:
        for split in report.counts:
            writer.append(split, dataset.split(split).x)
        found = writer.finish()
    path.with_suffix(".new").replace(path)
    return found


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended, Mapping[str, torch.Tensor]]:
    """The folder of a student that learnt from a teacher alone, how its job ended, and the teacher's weights, which learnt from labels."""
    folder = tmp_path_factory.mktemp("taught")
    first = fill(folder / "teacher", networks=(TEACHER, TEACHER), teacher=None, methods=[], recipe=RECIPE, dataset={"id": "ds_0"})
    assert work("run", first).code == 0
    weights = first / "out" / "export" / "model.safetensors"

    second = fill(
        folder / "student",
        recipe={**RECIPE, "task_weight": 0.0},
        dataset={"id": "ds_0", "take": {"total": 600}},
        networks=(TEACHER, STUDENT),
    )
    (second / "in" / "teacher.safetensors").write_bytes(weights.read_bytes())
    task = json.loads((second / "job.json").read_text())
    task["dataset"] = without_labels(second / "in" / "dataset.safetensors").model_dump(mode="json")
    task["teacher"]["classes"] = NAMES
    (second / "job.json").write_text(json.dumps(task))
    return second, work("run", second), load_file(weights)


def test_the_student_agrees_with_a_teacher_that_learnt_from_labels(taught: tuple[Path, Ended, Mapping[str, torch.Tensor]]) -> None:
    folder, ended, _ = taught
    assert (ended.code, ended.log) == (0, "")
    assert set(ended.result["test"]) == {"agreement", "max_abs_diff", "n"}
    assert ended.result["teacher"] is None
    # Chance is a tenth, the teacher is right on nine in ten or more, and so is a student that does as it does.
    assert ended.result["test"]["agreement"] > 0.8
    student = parse(STUDENT).build().eval()
    student.load_state_dict(load_file(folder / "out" / "export" / "model.safetensors"))
    x, y = digits()
    with torch.no_grad():
        answers = student((torch.from_numpy(x)[:, None].float() / 255 - 0.3) / 0.38).argmax(1).numpy()
    assert (answers == y).mean() > 0.8  # by labels that the job never saw


def test_the_export_names_the_classes_as_the_teacher_does(taught: tuple[Path, Ended, Mapping[str, torch.Tensor]]) -> None:
    folder, _, _ = taught
    config = json.loads((folder / "out" / "export" / "config.json").read_text())
    assert tuple(config["classes"]) == NAMES


def test_the_card_tells_of_the_agreement_and_claims_no_accuracy(taught: tuple[Path, Ended, Mapping[str, torch.Tensor]]) -> None:
    folder, ended, _ = taught
    page = (folder / "out" / "export" / "README.md").read_text()
    share, n = ended.result["test"]["agreement"], ended.result["test"]["n"]
    assert f"The student gives the teacher's top-1 class on {100 * share:.2f} % of {n} test inputs" in page
    assert "without a teacher there is no baseline" in page
    assert "/baseline" not in page
    assert "tested on data without labels" in page
    assert "metrics: [accuracy]" not in page


def test_the_teachers_data_keeps_its_labels_and_the_transfer_set_has_none(tmp_path: Path) -> None:
    asked: dict[str, Any] = {
        "methods": [{"name": "anti_distillation", "epochs": 1}, {"name": "kd"}],
        "teacher_dataset": {"id": "ds_1"},
        "recipe": {"epochs": 1, "batch_size": 32, "task_weight": 0},
    }
    folder = fill(tmp_path / "job", networks=(STUDENT, TEACHER), **asked)  # a small teacher of a larger student
    theirs = folder / "in" / "teacher_dataset.safetensors"
    theirs.write_bytes((folder / "in" / "dataset.safetensors").read_bytes())
    task = json.loads((folder / "job.json").read_text())
    task["teacher_dataset"], task["dataset"] = (
        task["dataset"],
        without_labels(folder / "in" / "dataset.safetensors").model_dump(mode="json"),
    )
    job = Job.open(folder, task)
    transfer, train = job.sources(subset(job.data, job.spec.dataset), "cpu").fits
    assert set(transfer(0, 0).y.tolist()) <= set(range(10))
    assert set(train(0, 0).y.tolist()) == {UNLABELLED}
