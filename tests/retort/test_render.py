"""What a person reads of a job."""

import io
import json

from rich.console import Console

from retort.client import Client
from retort.render import asset, assets, job, jobs
from retort.values import Asset
from tests.retort.stage import Answer, script, stage


def test_curves_are_shown_with_epsilon_across_and_a_boundary_with_its_pairs() -> None:
    fgsm = {"epsilon": [k / 500 for k in range(10)], "accuracy": [0.915, *[0.5] * 9]}
    noise = {"epsilon": [k / 100 for k in range(10)], "accuracy": [0.915, *[0.25] * 9], "sd": [0.0, *[0.125] * 9]}
    sides = {"student": {"fgsm": fgsm, "parameter_noise": noise}, "teacher": {"fgsm": fgsm}}
    test = {
        "accuracy": 0.915,
        "n": 600,
        "boundary_tried": 256,
        "boundary_pairs": 250,
        "magsim": 0.75,
        "angsim": 0.5,
        "boundary_distance": 0.3,
    }
    terms = {"wasserstein": {"form": "tangent"}}
    result = {"test": test, "teacher": {"accuracy": 0.98, "boundary_distance": 0.4}, "curves": sides, "terms": terms}
    shown = Console(width=80, file=io.StringIO())
    raw = {"id": "job_1", "name": "small", "status": "succeeded", "is_terminal": True, "result": result}
    with stage(script(Answer(200, json.dumps(raw).encode()))) as service:
        shown.print(job(Client(service.url, key="k").jobs.get("job_1")))
    lines = [line.split() for line in shown.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert ["epsilon", "0", *(f"{k / 500:g}" for k in range(1, 10))] in lines
    assert lines.count(["student", "0.915", *["0.500"] * 9]) == lines.count(["teacher", "0.915", *["0.500"] * 9]) == 1
    assert ["student", "0.915", *["0.250"] * 9] in lines
    assert ["sd", "0.000", *["0.125"] * 9] in lines
    assert ["boundary", "pairs", "250", "of", "256", "tried"] in lines
    assert ["MagSim,", "AngSim", "0.750,", "0.500"] in lines
    assert ["wasserstein", "form", "tangent"] in lines
    assert ["boundary", "distance", "0.3,", "the", "teacher's", "0.4"] in lines


def test_a_result_without_labels_shows_the_agreement_in_the_place_of_accuracy() -> None:
    result = {"test": {"agreement": 0.875, "max_abs_diff": 1.0, "n": 8}, "teacher": None}
    raw = {"id": "job_1", "name": "small", "status": "succeeded", "is_terminal": True, "result": result}
    shown = Console(width=100, file=io.StringIO())
    with stage(script(Answer(200, json.dumps(raw).encode()))) as service:
        one = Client(service.url, key="k").jobs.get("job_1")
    shown.print(job(one))
    shown.print(jobs([one]))
    lines = [line.split() for line in shown.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert ["agreement", "0.8750", "(n", "=", "8)"] in lines
    assert not any("accuracy" in line for line in lines if line[0] != "job")
    assert ["job_1", "small", "succeeded", "agreement", "0.8750", "(n", "=", "8)"] in [line[:8] for line in lines]


def test_a_dataset_without_labels_says_so_in_the_place_of_its_classes() -> None:
    report = {"classes": 0, "labelled": False, "counts": {"train": 80, "test": 20}}
    raw = {"object": "dataset", "id": "ds_1", "name": "u", "status": "ready", "report": report, "created_at": None}
    shown = Console(width=100, file=io.StringIO())
    with stage(script(Answer(200, json.dumps({"data": [raw], "has_more": False}).encode()))) as service:
        shown.print(assets(Client(service.url, key="k").datasets.list()))
    assert "no labels, 80 train, 20 test" in shown.file.getvalue()  # type: ignore[attr-defined]


def test_a_network_is_shown_with_what_one_input_costs_and_one_from_before_that_was_measured_without() -> None:
    anatomy = {"flops": 3506816, "activations": 209030}
    raw = {"id": "arc_1", "object": "architecture", "name": "n", "status": "ready", "report": {"parameters": 6010, "anatomy": anatomy}}
    shown = asset(Asset.of(raw)).plain
    assert "6,010 parameters" in shown
    assert "3,506,816 floating-point operations; training keeps 209,030 bytes" in shown
    before = {**raw, "report": {"parameters": 6010, "anatomy": {"flops": 3506816}}}
    assert "training keeps" not in asset(Asset.of(before)).plain
