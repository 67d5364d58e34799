"""A student written down, read back, and used by somebody who has PyTorch and not Retort."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.events import decode, encode
from core.export import Facts, Unfaithful, formats
from core.export.trained import Trained
from core.networks import families, parse
from core.taps import Tapped
from tests.core.declared import required
from tests.core.export.making import exports_of, facts_of, offered, student_of

SAFETENSORS = formats()["safetensors"]


def written(folder: Path, student: Tapped, facts: Facts) -> Path:
    """The files of the format alone."""
    folder.mkdir(parents=True, exist_ok=True)
    trained = Trained(student, facts.family, normalizes=facts.normalization is not None, calibration=lambda: torch.empty(0))
    SAFETENSORS.write(trained, folder)
    return folder


def answers(folder: Path, facts: Facts, x: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """What the lines of the card make of `x`."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "network", raising=False)
    space: dict[str, object] = {}
    exec(SAFETENSORS.lines(facts.family, facts.normalization, 1), space)
    monkeypatch.delitem(sys.modules, "network")
    predict = space["predict"]
    assert callable(predict)
    logits: torch.Tensor = predict(x)
    return logits


@pytest.mark.parametrize("name", list(families()))
def test_every_family_is_written_and_read_back_bit_for_bit(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = facts_of(family=parse({"family": name, "input": [1, 8, 8], "classes": 3, **required(name, 3)}))
    student, x = student_of(facts), torch.rand(5, 1, 8, 8)
    with torch.no_grad(), student.quiet():
        assert torch.equal(answers(written(tmp_path, student, facts), facts, x, monkeypatch), student(x).logits)


def test_a_student_in_channels_last_is_read_back_too(tmp_path: Path) -> None:
    facts = facts_of(family=parse({"family": "wrn", "depth": 10, "input": [1, 8, 8], "classes": 3}))
    student = student_of(facts)
    state = student.network.state_dict()
    student.network.load_state_dict(
        {k: v.contiguous(memory_format=torch.channels_last) if v.ndim == 4 else v for k, v in state.items()}, assign=True
    )
    assert not student.network.get_parameter("block3.0.conv1.weight").is_contiguous()
    made, _ = offered(tmp_path, student, facts, "safetensors")
    assert made["safetensors"].refused is None
    assert made["safetensors"].facts["top1_agreement"] == 1


def test_only_the_student_is_in_the_file(tmp_path: Path) -> None:
    facts = facts_of(normalization=None)
    student = Tapped(student_of(facts).network, taps=["block1.relu:in"])
    weights = load_file(written(tmp_path, student, facts) / "model.safetensors")
    state = student.network.state_dict()
    assert weights.keys() == state.keys()
    assert all(torch.equal(weights[key], value) for key, value in state.items())
    size = sum(value.nbytes for value in state.values())
    assert size < (tmp_path / "model.safetensors").stat().st_size < size + 4096


def test_the_same_student_gives_the_same_bytes_and_draws_nothing(tmp_path: Path) -> None:
    facts = facts_of()
    student = student_of(facts)
    state = torch.get_rng_state()
    first, second = (written(tmp_path / name, student, facts) for name in "ab")
    for name in SAFETENSORS.files:
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_that_changed_on_their_way_to_disk_are_never_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = facts_of()

    def torn(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
        first = next(iter(tensors))
        save_file({**tensors, first: tensors[first] + 1e-7}, path, metadata)

    monkeypatch.setattr("core.artifacts.save_file", torn)  # a disk that lies
    with pytest.raises(Unfaithful, match="not the student's"):
        written(tmp_path, student_of(facts), facts)


def test_a_network_that_is_not_the_one_described_is_never_offered(tmp_path: Path) -> None:
    other = facts_of(normalization={"mean": [0.9], "std": [0.05]})
    with pytest.raises(Unfaithful, match="logits differ from the student's by"):
        offered(tmp_path, student_of(facts_of()), other, "safetensors")


def test_a_stranger_loads_it_with_the_lines_of_the_card(tmp_path: Path) -> None:
    facts = facts_of()
    student, x = student_of(facts), torch.rand(6, 1, 8, 8)
    before = {name: module.training for name, module in student.named_modules()}
    _, told = offered(tmp_path, student, facts, "safetensors")
    assert {name: module.training for name, module in student.named_modules()} == before
    exported = exports_of(told)["safetensors"]
    assert decode(encode(exported)) == exported
    folder = tmp_path / "out" / "export"
    save_file({"x": x}, tmp_path / "x.safetensors")
    lines = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    program = f"""
import sys
sys.path.insert(0, ".")
{lines}
from safetensors.torch import save_file
x = load_file("../../x.safetensors")["x"]
assert "core" not in sys.modules
save_file({{"logits": predict(x)}}, "../../logits.safetensors")
"""
    subprocess.run([sys.executable, "-I", "-c", program], cwd=folder, check=True, timeout=120)
    with student.quiet(), torch.no_grad():
        assert torch.equal(load_file(tmp_path / "logits.safetensors")["logits"], student(x).logits)
