"""Losses and gradients against an independent reference in NumPy (golden/make.py), both in float64."""

import ast
import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.anatomy import measure
from core.data import Domain
from core.method import Method, Scene
from core.methods.ab import AB
from core.methods.anti_distillation import Distance
from core.methods.at import AT
from core.methods.bss import BSS
from core.methods.fitnet import Fitnet
from core.methods.fsp import FSP
from core.methods.jacobian import Slope
from core.methods.kd import KD
from core.methods.wasserstein import Wasserstein
from core.networks import parse
from core.taps import Pair, Tapped, View
from core.trace import Curvature
from tests.core import toys
from tests.core.methods.golden import make
from tests.core.methods.scenes import look, loss
from tests.core.toys import DOMAIN

GOLDEN = json.loads(make.FILE.read_text())["cases"]
INPUTS = make.inputs()


def tensor(values: Any, *, learns: bool = False) -> Tensor:
    return torch.from_numpy(np.array(values)).requires_grad_(learns)


def compare(name: str, found: Tensor, **student: Tensor) -> None:
    """A loss and its gradients with the file, to 1e-9."""
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(GOLDEN[name]["loss"], rel=1e-9, abs=1e-12)
    assert set(student) == set(GOLDEN[name]["gradients"])
    gradients = torch.autograd.grad(found, list(student.values()))
    for key, gradient in zip(student, gradients, strict=True):
        expected = tensor(GOLDEN[name]["gradients"][key]).reshape(gradient.shape)
        assert expected.abs().max() > 1e-4, "an expectation of nothing cannot be missed"
        torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-9)


def test_the_file_is_what_the_script_makes() -> None:
    for name, case in make.made()["cases"].items():
        assert case["loss"] == pytest.approx(GOLDEN[name]["loss"], rel=1e-12)
        assert set(case["gradients"]) == set(GOLDEN[name]["gradients"])
        for key, gradient in case["gradients"].items():
            assert gradient == pytest.approx(GOLDEN[name]["gradients"][key], rel=1e-9, abs=1e-11)
    assert set(GOLDEN) == set(INPUTS)


def test_the_script_knows_neither_torch_nor_the_engine() -> None:
    imported = {
        (node.module or "") if isinstance(node, ast.ImportFrom) else alias.name
        for node in ast.walk(ast.parse(make.FILE.with_name("make.py").read_text()))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    assert imported == {"json", "collections.abc", "pathlib", "typing", "numpy", "numpy.typing"}


def term(method: Method, *, teacher: int, student: int) -> Any:
    """The one term of a method on two toys of these widths, in float64."""
    lesson = method.lesson(measure(toys.Toy(width=teacher)), measure(toys.Toy(width=student)))
    (weighted,) = (lesson.transfer[0].terms if lesson.transfer else lesson.train).values()
    return weighted.term.double()


def plain(w1: Any, b1: Any, w2: Any) -> Tapped:
    """The network of one hidden layer that has these weights, in float64; the bias of its logits is 0."""
    network = parse({"family": "mlp", "input": [5], "hidden": [len(w1)], "classes": len(w2)}).build().double()
    weights = {"linear1.weight": w1, "linear1.bias": b1, "fc.weight": w2, "fc.bias": np.zeros(len(w2))}
    network.load_state_dict({name: tensor(values) for name, values in weights.items()})
    return Tapped(network)


def test_kd() -> None:
    case = INPUTS["kd"]
    student, teacher = tensor(case["student"], learns=True), tensor(case["teacher"])
    made = term(KD(temperature=case["temperature"]), teacher=4, student=4)
    # The term wants logits alone, so a network that passes its input on stands for each of the two.
    plain = Tapped(nn.Identity())
    kept = made.target(View(teacher, {}))
    index = torch.arange(len(student))
    compare("kd", made(Scene(student, index, index, View(student, {}), kept, plain, None, None, torch.tensor(0), DOMAIN)), student=student)


@pytest.mark.parametrize("variant", ["corrected", "official"])
def test_fitnet(variant: str) -> None:
    case = INPUTS[f"fitnet {variant}"]
    made = term(Fitnet.model_validate({"variant": variant, "pairs": [Pair("relu1", "relu1")]}), teacher=2, student=3)
    (convolution, _) = made.regressors[0]
    convolution.weight, convolution.bias = nn.Parameter(tensor(case["weight"])), nn.Parameter(tensor(case["bias"]))
    guided = tensor(case["guided"], learns=True)
    compare(f"fitnet {variant}", loss(made, student={"relu1": guided}, teacher={"relu1": tensor(case["hint"])}), student=guided)


def test_at() -> None:
    made = term(AT(pairs=(Pair("relu1", "relu1"),)), teacher=4, student=3)
    student = tensor(INPUTS["at"]["student"], learns=True)
    compare("at", loss(made, student={"relu1": student}, teacher={"relu1": tensor(INPUTS["at"]["teacher"])}), student=student)


def test_fsp() -> None:
    made = term(FSP(pairs=(Pair("relu1", "relu1"), Pair("relu2", "relu2"))), teacher=2, student=2)
    first, second = (tensor(features, learns=True) for features in INPUTS["fsp"]["student"])
    theirs, later = map(tensor, INPUTS["fsp"]["teacher"])
    found = loss(made, student={"relu1": first, "relu2": second}, teacher={"relu1": theirs, "relu2": later})
    compare("fsp", found, first=first, second=second)


def test_ab() -> None:
    case = INPUTS["ab"]
    made = term(AB(margin=case["margin"], pairs=(Pair("relu1:in", "relu1:in"),)), teacher=2, student=2)
    student = tensor(case["student"], learns=True)
    compare("ab", loss(made, student={"relu1:in": student}, teacher={"relu1:in": tensor(case["teacher"])}), student=student)


def test_jacobian() -> None:
    case = INPUTS["jacobian"]
    student, teacher = (plain(*case[name]) for name in ("student", "teacher"))
    found = look(Slope((), "label"), student, teacher.requires_grad_(False), tensor(case["x"]), tensor(case["y"]))
    weights = dict(student.network.named_parameters())
    compare("jacobian", found, w1=weights["linear1.weight"], w2=weights["fc.weight"])


@pytest.mark.parametrize("variant", ["corrected", "official"])
def test_bss(variant: str) -> None:
    case = INPUTS[f"bss {variant}"]
    student, teacher = (plain(*case[name]) for name in ("student", "teacher"))
    x, domain = tensor(case["x"]), Domain(-4.0, 4.0, (0.0,), (case["std"],))
    shown, theirs = student(x), teacher.requires_grad_(False)(x)
    made = term(BSS.model_validate({"variant": variant}), teacher=4, student=4)
    index = torch.arange(len(x))
    found = made(Scene(x, theirs.logits.argmax(1), index, shown, theirs, student, teacher, None, torch.tensor(0), domain))
    weights = dict(student.network.named_parameters())
    compare(f"bss {variant}", found, w1=weights["linear1.weight"], w2=weights["fc.weight"])


@pytest.mark.parametrize("form", ["double_backward", "tangent"])
@pytest.mark.parametrize(("loss", "norm"), [("kl", "l2"), ("mse", "l1")])
def test_wasserstein(loss: str, norm: str, form: str) -> None:
    name = f"wasserstein {loss} {norm}"
    case = INPUTS[name]
    student, teacher = (plain(*case[one]) for one in ("student", "teacher"))
    asked = {"loss": loss, "norm": norm, "form": form, "temperature": case["temperature"], "epsilon": case["epsilon"]}
    made = term(Wasserstein.model_validate(asked), teacher=4, student=4)
    x = tensor(case["x"])
    found = look(made, student, teacher.requires_grad_(False), x, torch.zeros(len(x), dtype=torch.int64))
    weights = dict(student.network.named_parameters())
    compare(name, found, w1=weights["linear1.weight"], w2=weights["fc.weight"])


@pytest.mark.parametrize("variant", ["corrected", "official"])
def test_distance(variant: str) -> None:
    case = INPUTS[f"distance {variant}"]
    student, teacher = (plain(*case[name]) for name in ("student", "teacher"))
    names = ("linear1.weight", "linear1.bias", "fc.weight")
    made = Distance(names, squared=variant == "corrected")
    found = look(made, student, teacher.requires_grad_(False), torch.zeros(2, 5).double(), torch.tensor([0, 1]))
    weights = dict(student.network.named_parameters())
    compare(f"distance {variant}", found, **{f"w{k}": weights[name] for k, name in enumerate(names)})


@pytest.mark.parametrize("name", ["trace", "trace of two classes"])
def test_trace(name: str) -> None:
    case = INPUTS[name]
    student, x, index = plain(*case["student"]), tensor(case["x"]), torch.arange(len(case["x"]))
    shown, classes = student(x), tensor(case["classes"])
    scene = Scene(x, torch.zeros_like(index), index, shown, None, student, None, classes, torch.tensor(0), DOMAIN)
    weights = dict(student.network.named_parameters())
    found = Curvature("auto", 2)(scene)
    compare(name, found, w1=weights["linear1.weight"], w2=weights["fc.weight"])
