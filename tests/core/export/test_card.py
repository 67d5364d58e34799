"""The model card."""

from typing import Any

import pytest
import yaml

from core.export import Facts
from core.export.card import card as page_of
from core.export.card import gain
from core.networks import parse
from tests.core.export.making import facts_of

VERSIONS = {"retort": "0.1.0", "torch": "2.13.0"}
LATENCY = [{"batch": 1, "p50_ms": 0.5, "p95_ms": 0.75, "n": 100}, {"batch": 32, "p50_ms": 4.0, "p95_ms": 6.5, "n": 60}]
FIGURES = {
    "file": "model.safetensors",
    "bytes": 5_678,
    "max_abs_diff": 2e-6,
    "top1_agreement": 0.99,
    "compared": 300,
    "accuracy": 0.9,
    "threads": 2,
    "latency": LATENCY,
}


def told(format: str = "safetensors", refused: str | None = None, **facts: Any) -> dict[str, Any]:
    return {"format": format, "refused": refused, "facts": {**FIGURES, **facts}}


def card(facts: Facts, *exports: dict[str, Any]) -> str:
    return page_of(facts, exports or (told(),), VERSIONS, threads=2, teacher=LATENCY)


def test_teacher_and_student_stand_side_by_side_with_their_n() -> None:
    page = card(facts_of())
    assert "| teacher | 97.50 % | 360 | 24,058 | 47,000 | 98,000 |\n| student | 91.25 % | 360 | 1,234 | 5,432 | 5,678 |" in page


def test_seed_hardware_and_versions_stand_by_the_figures() -> None:
    assert "Seed 7; cpu, 2 threads; retort 0.1.0, torch 2.13.0." in card(facts_of())


def test_a_network_of_timm_is_said_to_need_timm_where_it_is_built_and_nowhere_else() -> None:
    family = parse({"family": "timm", "name": "test_resnet", "input": [1, 8, 8], "classes": 3})
    page = card(facts_of(family=family), told(), told("onnx", file="model.onnx"))
    assert page.count("`network.py` needs timm and torchvision beside PyTorch.") == 1
    assert "needs timm" not in card(facts_of())


def test_a_baseline_has_no_teacher_and_says_so() -> None:
    page = card(facts_of(teacher=None, spec={"methods": []}))
    assert "| teacher |" not in page
    assert "without a teacher" in page


def test_a_sum_of_methods_is_named_as_one() -> None:
    assert "distilled with ab + kd," in card(facts_of(spec={"methods": [{"name": "ab"}, {"name": "kd"}]}))


def test_figures_on_some_classes_alone_are_said_to_be_that() -> None:
    page = card(facts_of(spec={"methods": [], "dataset": {"id": "ds_1", "classes": ["3", "8"]}}))
    assert "trained and tested on 2 of the 3 classes alone: the figures take no other output for an answer" in page
    for everything in ({"id": "ds_1", "classes": None}, {"id": "ds_1"}):
        assert "tested on all 3 classes." in card(facts_of(spec={"methods": [], "dataset": everything}))


def test_a_teacher_that_was_not_measured_has_no_accuracy() -> None:
    page = card(facts_of(teacher={"parameters": 24_058}))
    assert "| teacher | not measured |  | 24,058 |  |  |" in page


def test_curves_are_tables_with_epsilon_across() -> None:
    fgsm = {"epsilon": [0.0, 0.002], "accuracy": [0.9125, 0.5]}
    noise = {"epsilon": [0.0, 0.01], "accuracy": [0.9125, 0.7], "sd": [0.0, 0.0125]}
    page = card(facts_of(curves={"student": {"fgsm": fgsm, "parameter_noise": noise}, "teacher": {"fgsm": fgsm}}))
    assert (
        "(FGSM):\n\n| epsilon, data units | 0 | 0.002 |\n|---|---:|---:|\n| student | 91.25 | 50.00 |\n| teacher | 91.25 | 50.00 |\n"
        in page
    )
    assert "| epsilon | 0 | 0.01 |\n|---|---:|---:|\n| student | 91.25 ± 0.00 | 70.00 ± 1.25 |\n\n## Files" in page


def test_a_boundary_is_told_with_its_pairs_and_as_our_reconstruction() -> None:
    test = {"accuracy": 0.9125, "n": 360, "boundary_tried": 256, "boundary_pairs": 250}
    page = card(facts_of(test={**test, "magsim": 0.7343, "angsim": 0.4342}))
    assert "MagSim 0.734, AngSim 0.434, where both attacks reached it, which is on 250 of 256 samples" in page
    assert "reconstruction" in page
    assert "nothing to compare" in card(facts_of(test={**test, "boundary_pairs": 0}))


def test_what_was_not_asked_for_is_not_mentioned() -> None:
    page = card(facts_of())
    assert "says little about another.\n\n## Files" in page
    assert "epsilon" not in page


def test_a_method_stands_with_its_parameters() -> None:
    assert "distilled with kd (temperature=4.0), 30 epochs in all" in card(facts_of())


def test_the_front_matter_is_yaml_that_the_hub_reads() -> None:
    front = yaml.safe_load(card(facts_of()).split("---\n")[1])
    assert front["library_name"] == "pytorch"
    assert front["tags"] == ["retort", "knowledge-distillation", "convnet", "kd"]
    assert "license" not in front  # it is for a person to state


def test_a_gain_is_the_difference_to_the_baseline_and_no_gain_is_said_to_be_none() -> None:
    baseline = {"job": "job_1", "accuracy": 0.9, "n": 360, "seed": 7}
    assert gain(facts_of(baseline=baseline)) == pytest.approx(0.0125)
    page = card(facts_of(baseline=baseline))
    assert "**gain: +1.25 points** against the same student, data and epochs without a teacher (job job_1, seed 7, 360 inputs)" in page
    assert "| the same without a teacher | 90.00 % | 360 |" in page
    assert "**no gain: -3.75 points**" in card(facts_of(baseline={**baseline, "accuracy": 0.95}))


def test_without_a_baseline_the_card_says_how_to_run_one() -> None:
    assert gain(facts_of()) is None
    assert "the same student was not trained without one. `POST /v1/jobs/{id}/baseline`" in card(facts_of())
    assert "This is the baseline itself" in card(facts_of(spec={"methods": []}))


def test_the_files_stand_side_by_side_with_the_teachers_latency() -> None:
    page = card(facts_of(), told(), told("onnx_int8", file="model.int8.onnx", bytes=2_000, accuracy=None))
    assert "| `model.safetensors` | 5,678 | 90.00 % | 99.00 % of 300 | 2e-06 | 0.5 / 0.75 | 4 / 6.5 |" in page
    assert "| `model.int8.onnx` | 2,000 | not measured | 99.00 % of 300 |" in page
    assert "| the teacher | | | | | 0.5 / 0.75 | 4 / 6.5 |" in page
    assert "threads: 2" in page
    assert "60 to 100 calls" in page


def test_times_below_a_hundredth_of_a_millisecond_are_told_apart() -> None:
    fast = [{"batch": 1, "p50_ms": 0.0067, "p95_ms": 0.0095, "n": 100}, {"batch": 32, "p50_ms": 0.0395, "p95_ms": 0.0438, "n": 100}]
    page = card(facts_of(), told("onnx", file="model.onnx", latency=fast))
    assert "| 0.0067 / 0.0095 | 0.0395 / 0.0438 |" in page
    assert "times are of 100 calls" in page


def test_a_teacher_whose_operations_nobody_counted_has_none_on_the_card() -> None:
    assert "| teacher | 97.50 % | 360 | 24,058 |  | 98,000 |" in card(
        facts_of(teacher={"accuracy": 0.975, "n": 360, "parameters": 24_058, "bytes": 98_000})
    )


def test_a_refused_export_is_named_with_its_reason_and_without_lines_to_load_it() -> None:
    page = card(facts_of(), told(), told("int8", refused="it gives another class than the student on 40 of 300 test inputs"))
    assert "`int8` is not offered: it gives another class than the student on 40 of 300 test inputs." in page
    assert "### safetensors" in page
    assert "### int8" not in page


def test_what_loading_may_do_stands_above_the_lines_that_load() -> None:
    page = card(facts_of(), told("torch_export", file="model.pt2"))
    assert page.index("can run code") < page.index('torch.export.load("model.pt2")')


def test_a_set_without_labels_has_no_accuracy_and_the_limits_say_so() -> None:
    page = card(facts_of(test={"agreement": 0.97, "max_abs_diff": 2.5, "n": 360}))
    assert "| student | not measured | 360 |" in page
    assert "The data has no labels" in page


@pytest.mark.parametrize(
    ("normalization", "line"),
    [
        (None, "return network(x)\n"),
        ({"mean": [0.5], "std": [0.25]}, "std = torch.tensor([0.25]).view(-1, 1, 1)\n"),
    ],
)
def test_the_lines_that_load_it_normalise_as_the_network_does(normalization: dict[str, list[float]] | None, line: str) -> None:
    page = card(facts_of(normalization=normalization))
    assert line in page
    assert ("(x - mean) / std" in page) is (normalization is not None)
    assert ("nothing is normalised" in page) is (normalization is None)


def test_a_name_is_a_line_and_no_markup() -> None:
    page = card(facts_of(name="good\n# <script>alert(1)</script> | `x` [a](b)"))
    assert page.splitlines()[8] == "# good script alert(1) /script x a (b)"


def test_a_job_without_a_name_has_a_heading_all_the_same() -> None:
    assert card(facts_of(name="")).splitlines()[8] == "# A convnet of Retort"
