"""The model card."""

import pytest

from core.export.card import card
from tests.core.export.test_safetensors import facts_of

MEASURED = {"parameters": 1_234, "bytes": 5_678}
VERSIONS = {"retort": "0.1.0", "torch": "2.13.0"}


def test_teacher_and_student_stand_side_by_side_with_their_n() -> None:
    page = card(facts_of(), MEASURED, VERSIONS)
    assert "| teacher | 97.50 % | 360 | 24,058 | 98,000 |\n| student | 91.25 % | 360 | 1,234 | 5,678 |" in page


def test_seed_hardware_and_versions_stand_by_the_figures() -> None:
    assert "Seed 7; cpu, 2 threads; retort 0.1.0, torch 2.13.0." in card(facts_of(), MEASURED, VERSIONS)


def test_a_baseline_has_no_teacher_and_says_so() -> None:
    page = card(facts_of(teacher=None, spec={"methods": []}), MEASURED, VERSIONS)
    assert "| teacher |" not in page
    assert "without a teacher" in page


def test_a_sum_of_methods_is_named_as_one() -> None:
    assert "distilled with ab + kd" in card(facts_of(spec={"methods": [{"name": "ab"}, {"name": "kd"}]}), MEASURED, VERSIONS)


def test_figures_on_some_classes_alone_are_said_to_be_that() -> None:
    page = card(facts_of(spec={"methods": [], "dataset": {"id": "ds_1", "classes": ["3", "8"]}}), MEASURED, VERSIONS)
    assert "trained and tested on 2 of the 3 classes alone: the figures take no other output for an answer" in page
    for everything in ({"id": "ds_1", "classes": None}, {"id": "ds_1"}):
        assert "tested on all 3 classes." in card(facts_of(spec={"methods": [], "dataset": everything}), MEASURED, VERSIONS)


def test_a_teacher_that_was_not_measured_has_no_accuracy() -> None:
    page = card(facts_of(teacher={"parameters": 24_058}), MEASURED, VERSIONS)
    assert "| teacher | not measured |  | 24,058 |  |" in page


def test_curves_are_tables_with_epsilon_across() -> None:
    fgsm = {"epsilon": [0.0, 0.002], "accuracy": [0.9125, 0.5]}
    noise = {"epsilon": [0.0, 0.01], "accuracy": [0.9125, 0.7], "sd": [0.0, 0.0125]}
    page = card(facts_of(curves={"student": {"fgsm": fgsm, "parameter_noise": noise}, "teacher": {"fgsm": fgsm}}), MEASURED, VERSIONS)
    assert (
        "(FGSM):\n\n| epsilon, data units | 0 | 0.002 |\n|---|---:|---:|\n| student | 91.25 | 50.00 |\n| teacher | 91.25 | 50.00 |\n"
        in page
    )
    assert "| epsilon | 0 | 0.01 |\n|---|---:|---:|\n| student | 91.25 ± 0.00 | 70.00 ± 1.25 |\n\n## Load it" in page


def test_a_boundary_is_told_with_its_pairs_and_as_our_reconstruction() -> None:
    test = {"accuracy": 0.9125, "n": 360, "boundary_tried": 256, "boundary_pairs": 250}
    page = card(facts_of(test={**test, "magsim": 0.7343, "angsim": 0.4342}), MEASURED, VERSIONS)
    assert "MagSim 0.734, AngSim 0.434, where both attacks reached it, which is on 250 of 256 samples" in page
    assert "reconstruction" in page
    assert "nothing to compare" in card(facts_of(test={**test, "boundary_pairs": 0}), MEASURED, VERSIONS)


def test_what_was_not_asked_for_is_not_mentioned() -> None:
    page = card(facts_of(), MEASURED, VERSIONS)
    assert "says little about another.\n\n## Load it" in page
    assert "epsilon" not in page


@pytest.mark.parametrize(
    ("normalization", "line"),
    [
        (None, "logits = network(x)\n"),
        (
            {"mean": [0.5], "std": [0.25]},
            "logits = network((x - torch.tensor([0.5]).view(-1, 1, 1)) / torch.tensor([0.25]).view(-1, 1, 1))\n",
        ),
    ],
)
def test_the_lines_that_load_it_normalise_as_the_network_does(normalization: dict[str, list[float]] | None, line: str) -> None:
    assert line in card(facts_of(normalization=normalization), MEASURED, VERSIONS)


def test_a_name_is_a_line_and_no_markup() -> None:
    page = card(facts_of(name="good\n# <script>alert(1)</script> | `x` [a](b)"), MEASURED, VERSIONS)
    assert page.splitlines()[0] == "# good script alert(1) /script x a (b)"
