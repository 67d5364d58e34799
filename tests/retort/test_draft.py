import doctest
from pathlib import Path

import pytest

import retort.draft
from retort.draft import draft, measure_of, method_of, put, read_document, read_inline
from retort.errors import Misused


def test_the_examples_in_the_docstrings_hold() -> None:
    assert doctest.testmod(retort.draft).failed == 0


def test_flags_go_over_the_file_and_the_file_over_the_preset() -> None:
    spec = draft(
        preset={"recipe": {"epochs": 240, "batch_size": 64}, "methods": [{"name": "kd"}], "seed": 0, "evaluate": ["agreement"]},
        file={"name": "mine", "dataset": {"id": "ds_1", "validation": 0}, "recipe": {"epochs": 9}},
        student="arc_1",
        teacher="tch_1",
        take=200,
        methods=["kd:temperature=2"],
        measures=["fgsm:epsilons=[0, 0.01]", "boundary"],
        assignments=["recipe.optimizer.lr=0.05", "dataset.take.total=100"],
    )
    assert spec == {
        "name": "mine",
        "teacher": "tch_1",
        "student": {"architecture": "arc_1"},
        "dataset": {"id": "ds_1", "validation": 0, "take": {"total": 100}},
        "methods": [{"name": "kd", "temperature": 2}],
        "evaluate": [{"name": "fgsm", "epsilons": [0, 0.01]}, "boundary"],
        "recipe": {"epochs": 9, "batch_size": 64, "optimizer": {"lr": 0.05}},
        "seed": 0,
    }


def test_a_part_of_the_images_replaces_the_presets_part() -> None:
    preset = {"dataset": {"validation": 0, "take": {"fraction": 0.1}}}
    assert draft(preset=preset, take=200)["dataset"] == {"validation": 0, "take": {"total": 200}}
    assert draft(preset=preset, file={"dataset": {"take": {"per_class": 5}}})["dataset"]["take"] == {"per_class": 5}


def test_another_optimizer_takes_nothing_of_the_presets() -> None:
    preset = {"recipe": {"batch_size": 64, "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9}}}
    spec = draft(preset=preset, file={"recipe": {"optimizer": {"name": "adamw", "lr": 0.001}}})
    assert spec["recipe"] == {"batch_size": 64, "optimizer": {"name": "adamw", "lr": 0.001}}
    same = draft(preset=preset, file={"recipe": {"optimizer": {"name": "sgd", "lr": 0.2}}})
    assert same["recipe"]["optimizer"] == {"name": "sgd", "lr": 0.2, "momentum": 0.9}


def test_numbers_in_scientific_notation_are_numbers(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("recipe: {optimizer: {lr: 1e-1, weight_decay: 5e-4, eps: 1.0E-8}}\nname: e5\nmetadata: {run: '1e3'}\n")
    assert read_document(file) == {
        "recipe": {"optimizer": {"lr": 0.1, "weight_decay": 5e-4, "eps": 1e-8}},
        "name": "e5",
        "metadata": {"run": "1e3"},
    }


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("a: [1,", "neither YAML nor JSON"),
        ("- 1\n", "holds a list"),
        ("", "is empty"),
        ("7", "a single value"),
        ("!!python/object:os.system {}", "neither YAML nor JSON"),
    ],
)
def test_a_file_that_is_no_spec_is_refused_with_its_name(content: str, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(content)
    with pytest.raises(Misused, match=reason) as caught:
        read_document(file)
    assert str(file) in str(caught.value)


def test_an_architecture_is_json_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"family": "mlp"}')
    assert read_inline(str(tmp_path / "a.json"), what="architecture") == read_inline('{"family": "mlp"}', what="architecture")
    with pytest.raises(Misused, match="the architecture is not JSON"):
        read_inline("{family: mlp}", what="architecture")


@pytest.mark.parametrize("text", ["kd:temperature", "kd:=4"])
def test_a_method_that_cannot_be_read_says_how_to_write_it(text: str) -> None:
    with pytest.raises(Misused, match="not parameter=value") as caught:
        method_of(text)
    assert "kd:temperature=4" in caught.value.hint


def test_a_measure_that_cannot_be_read_says_how_to_write_it() -> None:
    with pytest.raises(Misused, match="--evaluate fgsm:clamp") as caught:
        measure_of("fgsm:clamp")
    assert "--evaluate boundary:samples=64" in caught.value.hint


@pytest.mark.parametrize("assignment", ["seed", "methods.7.temperature=1", "a..b=1", "=1", "seed.x=1"])
def test_a_path_that_leads_nowhere_is_refused(assignment: str) -> None:
    with pytest.raises(Misused, match="--set"):
        put({"methods": [{"name": "kd"}], "seed": 0}, assignment)
