"""What lies beside the exported files."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from core.export import Facts
from core.export.bundle import write_documents
from core.networks import parse
from tests.core.export.making import facts_of
from tests.core.export.test_card import LATENCY, told


def written(folder: Path, facts: Facts, *exports: dict[str, Any]) -> dict[str, Any]:
    """The documents of a folder with one model, each parsed where it is JSON."""
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    paths = write_documents(facts, exports or [told()], folder, threads=2, teacher=LATENCY)
    assert {path.name for path in paths} | {"model.safetensors"} == {path.name for path in folder.iterdir()}
    return {path.name: json.loads(path.read_text()) if path.suffix == ".json" else path.read_text() for path in paths}


def test_the_sums_are_those_that_sha256sum_checks_over_all_that_lies_there(tmp_path: Path) -> None:
    lines = written(tmp_path, facts_of())["SHA256SUMS"].splitlines()
    assert len(lines) == len(list(tmp_path.iterdir())) - 1
    for line in lines:
        digest, name = line.split("  ")
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest


def test_the_same_facts_give_the_same_bytes(tmp_path: Path) -> None:
    assert written(tmp_path / "a", facts_of())["SHA256SUMS"] == written(tmp_path / "b", facts_of())["SHA256SUMS"]


def test_the_configuration_says_what_the_network_is_and_names_its_classes(tmp_path: Path) -> None:
    facts = facts_of()
    config = written(tmp_path, facts)["config.json"]
    assert parse(config["architecture"]) == facts.family
    assert config["id2label"] == {"0": "zero", "1": "one", "2": "two"}
    assert (config["input"], config["range"]) == ([1, 8, 8], [0.0, 1.0])
    assert config["normalization"] == {"mean": [0.3], "std": [0.25]}
    assert config["versions"]["torch"] == torch.__version__


@pytest.mark.parametrize("normalization", [None, {"mean": [0.3], "std": [0.25]}])
def test_the_preprocessing_is_that_of_the_network(normalization: dict[str, list[float]] | None, tmp_path: Path) -> None:
    said = written(tmp_path, facts_of(normalization=normalization))["preprocessor_config.json"]
    assert (said["size"], said["range"], said["dtype"]) == ({"height": 8, "width": 8}, [0.0, 1.0], "float32")
    assert said["do_normalize"] is (normalization is not None)
    assert (said.get("image_mean"), said.get("image_std")) == (([0.3], [0.25]) if normalization else (None, None))
    assert "onnx" in said["normalization_inside"]
    assert "safetensors" not in said["normalization_inside"]


def test_vectors_have_features_and_no_size(tmp_path: Path) -> None:
    said = written(tmp_path, facts_of(family=parse({"family": "mlp", "input": [5], "classes": 3})))["preprocessor_config.json"]
    assert (said["layout"], said["input"]) == ("features, in the order of the dataset's columns", [5])
    assert "size" not in said


def test_the_figures_come_with_their_n_seed_versions_and_hardware(tmp_path: Path) -> None:
    baseline = {"job": "job_1", "accuracy": 0.9, "n": 360, "seed": 7}
    refused = told("int8", refused="it gives another class than the student on 40 of 300 test inputs; 5% are allowed")
    metrics = written(tmp_path, facts_of(baseline=baseline), told(), refused)["metrics.json"]
    assert metrics["student"] == {"accuracy": 0.9125, "loss": 0.31, "n": 360, "parameters": 1234, "flops": 5432}
    assert metrics["teacher"] == {**facts_of().teacher, "latency": LATENCY}  # type: ignore[dict-item]
    assert (metrics["baseline"], metrics["gain"]) == (baseline, pytest.approx(0.0125))
    assert metrics["exports"] == [told(), refused]
    assert (metrics["seed"], metrics["hardware"], metrics["versions"]["torch"]) == (7, "cpu, 2 threads", torch.__version__)


def test_where_it_came_from_has_every_digest(tmp_path: Path) -> None:
    facts = facts_of(digests={"teacher": "ab" * 32, "dataset": "cd" * 32})
    provenance = written(tmp_path, facts)["provenance.json"]
    assert provenance["spec"] == facts.spec
    assert provenance["digests"] == facts.digests
    assert provenance["files"] == {"model.safetensors": hashlib.sha256(b"weights").hexdigest()}
