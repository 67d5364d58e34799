"""A student written down, read back, and used by somebody who has PyTorch and not Retort."""

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.events import decode, encode
from core.export import Facts, Unfaithful, export
from core.networks import families, parse
from core.taps import Tapped
from tests.core.declared import required


def facts_of(**changes: Any) -> Facts:
    family = parse({"family": "convnet", "input": [1, 8, 8], "classes": 3, "channels": [4, 8]})
    facts = Facts(
        name="digits, small",
        family=family,
        normalization={"mean": [0.3], "std": [0.25]},
        class_names=("zero", "one", "two"),
        range=(0.0, 1.0),
        test={"accuracy": 0.9125, "loss": 0.31, "n": 360},
        teacher={"accuracy": 0.975, "n": 360, "parameters": 24_058, "bytes": 98_000},
        curves={},
        spec={"name": "digits, small", "methods": [{"name": "kd", "temperature": 4.0}], "recipe": {"epochs": 30}, "seed": 7},
        seed=7,
        epochs=30,
        hardware="cpu, 2 threads",
    )
    return dataclasses.replace(facts, **changes)


def student_of(facts: Facts) -> Tapped:
    torch.manual_seed(0)
    space = facts.normalization or {}
    student = Tapped(facts.family.build(), mean=space.get("mean"), std=space.get("std")).train()
    student(torch.rand(16, *facts.family.input))  # moves the statistics of the batch norms
    return student


def test_the_bundle_holds_these_files_and_the_event_names_them_all(tmp_path: Path) -> None:
    facts = facts_of()
    exported = export("safetensors", student_of(facts), facts=facts, out=tmp_path / "out", sample=torch.rand(5, 1, 8, 8))
    names = {"model.safetensors", "network.py", "config.json", "README.md", "metrics.json", "provenance.json", "SHA256SUMS"}
    assert {path.name for path in (tmp_path / "out" / "export").iterdir()} == names == {file.name for file in exported.files}
    for file in exported.files:
        content = (tmp_path / file.path).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (file.sha256, file.bytes)
    assert decode(encode(exported)) == exported


def test_the_sums_are_those_that_sha256sum_checks(tmp_path: Path) -> None:
    facts = facts_of()
    export("safetensors", student_of(facts), facts=facts, out=tmp_path, sample=torch.rand(5, 1, 8, 8))
    folder = tmp_path / "export"
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert len((folder / "SHA256SUMS").read_text().splitlines()) == len(list(folder.iterdir())) - 1


@pytest.mark.parametrize("name", list(families()))
def test_every_family_is_written_and_read_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    facts = facts_of(family=parse({"family": name, "input": [1, 8, 8], "classes": 3, **required(name, 3)}))
    exported = export("safetensors", student_of(facts), facts=facts, out=tmp_path, sample=torch.rand(5, 1, 8, 8))
    assert exported.facts["max_abs_diff"] == 0
    assert exported.facts["top1_agreement"] == 1
    assert exported.facts["compared"] == 5


def test_a_student_in_channels_last_is_read_back_too(tmp_path: Path) -> None:
    facts = facts_of(family=parse({"family": "wrn", "depth": 10, "input": [3, 8, 8], "classes": 3}))
    student = student_of(facts)
    state = student.network.state_dict()
    student.network.load_state_dict(
        {k: v.contiguous(memory_format=torch.channels_last) if v.ndim == 4 else v for k, v in state.items()}, assign=True
    )
    assert not student.network.get_parameter("block3.0.conv1.weight").is_contiguous()
    assert export("safetensors", student, facts=facts, out=tmp_path, sample=torch.rand(5, 3, 8, 8)).facts["max_abs_diff"] == 0


def test_only_the_student_is_in_the_file(tmp_path: Path) -> None:
    facts = facts_of(normalization=None)
    student = Tapped(student_of(facts).network, taps=["block1.relu:in"])
    exported = export("safetensors", student, facts=facts, out=tmp_path, sample=torch.rand(5, 1, 8, 8))
    weights = load_file(tmp_path / "export" / "model.safetensors")
    state = student.network.state_dict()
    assert weights.keys() == state.keys()
    assert all(torch.equal(weights[key], value) for key, value in state.items())
    size = sum(value.nbytes for value in state.values())
    assert exported.facts["parameters"] == sum(p.numel() for p in student.network.parameters())
    assert size < exported.facts["bytes"] < size + 4096


def test_the_modes_of_the_student_are_its_own_afterwards(tmp_path: Path) -> None:
    facts = facts_of()
    student = student_of(facts)
    student.network.get_submodule("block1").eval()
    before = {name: module.training for name, module in student.named_modules()}
    export("safetensors", student, facts=facts, out=tmp_path, sample=torch.rand(5, 1, 8, 8))
    assert {name: module.training for name, module in student.named_modules()} == before


def test_the_same_student_gives_the_same_bytes_and_draws_nothing(tmp_path: Path) -> None:
    facts = facts_of()
    student, sample = student_of(facts), torch.rand(5, 1, 8, 8)
    state = torch.get_rng_state()
    first = export("safetensors", student, facts=facts, out=tmp_path / "a", sample=sample)
    second = export("safetensors", student, facts=facts, out=tmp_path / "b", sample=sample)
    assert [file.sha256 for file in first.files] == [file.sha256 for file in second.files]
    assert torch.equal(torch.get_rng_state(), state)


def test_the_configuration_says_how_to_use_it(tmp_path: Path) -> None:
    facts = facts_of()
    export("safetensors", student_of(facts), facts=facts, out=tmp_path, sample=torch.rand(5, 1, 8, 8))
    config = json.loads((tmp_path / "export" / "config.json").read_text())
    assert parse(config["architecture"]) == facts.family
    assert {key: config[key] for key in ("normalization", "classes", "input", "range")} == {
        "normalization": {"mean": [0.3], "std": [0.25]},
        "classes": ["zero", "one", "two"],
        "input": [1, 8, 8],
        "range": [0.0, 1.0],
    }


def test_the_figures_come_with_their_n_seed_versions_and_hardware(tmp_path: Path) -> None:
    facts = facts_of()
    export("safetensors", student_of(facts), facts=facts, out=tmp_path, sample=torch.rand(5, 1, 8, 8))
    metrics = json.loads((tmp_path / "export" / "metrics.json").read_text())
    assert metrics["student"]["accuracy"] == 0.9125
    assert metrics["student"]["n"] == 360
    assert metrics["teacher"]["accuracy"] == 0.975
    assert metrics["parity"] == {"max_abs_diff": 0.0, "top1_agreement": 1.0, "compared": 5}
    assert (metrics["seed"], metrics["hardware"], metrics["versions"]["torch"]) == (7, "cpu, 2 threads", torch.__version__)
    provenance = json.loads((tmp_path / "export" / "provenance.json").read_text())
    assert provenance["spec"] == facts.spec


def test_a_network_that_is_not_the_one_described_is_never_offered(tmp_path: Path) -> None:
    facts = facts_of()
    student = student_of(facts)
    other = facts_of(normalization={"mean": [0.9], "std": [0.05]})
    with pytest.raises(Unfaithful, match="differs from the student"):
        export("safetensors", student, facts=other, out=tmp_path, sample=torch.rand(5, 1, 8, 8))


def test_weights_that_changed_on_their_way_to_disk_are_never_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = facts_of()

    def torn(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
        first = next(iter(tensors))
        save_file({**tensors, first: tensors[first] + 1e-7}, path, metadata)

    monkeypatch.setattr("core.artifacts.save_file", torn)  # a disk that lies
    with pytest.raises(Unfaithful, match="not the student's"):
        export("safetensors", student_of(facts), facts=facts, out=tmp_path, sample=torch.rand(5, 1, 8, 8))


def test_a_stranger_loads_it_with_the_lines_of_the_card(tmp_path: Path) -> None:
    facts = facts_of()
    student = student_of(facts)
    x = torch.rand(6, 1, 8, 8)
    export("safetensors", student, facts=facts, out=tmp_path, sample=x)
    folder = tmp_path / "export"
    save_file({"x": x}, tmp_path / "x.safetensors")
    lines = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    program = f"""
import sys
sys.path.insert(0, ".")
from safetensors.torch import load_file, save_file
x = load_file("../x.safetensors")["x"]
{lines}
assert "core" not in sys.modules
save_file({{"logits": logits.detach()}}, "../logits.safetensors")
"""
    subprocess.run([sys.executable, "-I", "-c", program], cwd=folder, check=True, timeout=120)
    with student.quiet():
        assert torch.equal(load_file(tmp_path / "logits.safetensors")["logits"], student(x).logits)
