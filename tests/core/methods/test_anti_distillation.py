"""Oracles of anti-distillation: each of its four terms by hand, what is brought and what is refused, and jobs on the teacher's data."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.anatomy import measure
from core.data import Batches
from core.errors import Refused
from core.method import Scene, Term
from core.methods.anti_distillation import AntiDistillation, Distance, Labels, shared
from core.networks import parse
from core.optim import SGD, Recipe
from core.random import key_of
from core.taps import Tapped
from core.trace import Curvature
from tests.core import toys
from tests.core.folders import fill, work
from tests.core.methods.scenes import state_of, transfer
from tests.core.toys import DOMAIN, Toy, spec, tapped

DATA: dict[str, Any] = {"teacher_dataset": {"id": "ds_2", "validation": 0.0}}
SMALL, LARGE = Toy(width=4), Toy(width=6)
NAMES = [f"anti_distillation.{term}" for term in ("labels", "distance", "noise", "trace")]
WEIGHTS = ("labels_weight", "distance_weight", "noise_weight", "trace_weight")


def only(which: int, **fields: Any) -> AntiDistillation:
    """The method with one of its four terms, at weight 1."""
    return AntiDistillation(**{weight: float(k == which) for k, weight in enumerate(WEIGHTS)}, **fields)


def terms(method: AntiDistillation) -> dict[str, Term]:
    (fit,) = method.lesson(measure(SMALL), measure(LARGE)).transfer
    return {name: weighted.term for name, weighted in fit.terms.items()}


def shown(student: Tapped, x: Tensor, y: Tensor, *, teacher: Tapped | None = None, classes: Tensor | None = None, key: str = "k") -> Scene:
    return Scene(x, y, torch.arange(len(x)), student(x), None, student, teacher, classes, key_of(key), domain=DOMAIN)


def made(method: AntiDistillation, **more: Any) -> toys.Job:
    return toys.make(spec(method, **DATA, **more), teacher=SMALL, student=LARGE)


def test_four_terms_make_one_transfer_fit_on_the_teachers_data_and_nothing_is_added_to_the_training() -> None:
    lesson = AntiDistillation(epochs=7, lr=0.005, distance_weight=0.5).lesson(measure(SMALL), measure(LARGE))
    (fit,) = lesson.transfer
    assert (list(fit.terms), fit.data, fit.recipe.epochs, fit.lr) == (NAMES, "teacher", 7, 0.005)
    assert [weighted.weight for weighted in fit.terms.values()] == [1.0, 0.5, 1.0, 0.001]
    assert (lesson.initialise, lesson.train) == ((), {})


def test_a_term_of_weight_0_is_not_brought_and_without_any_there_is_nothing_to_learn() -> None:
    assert [list(terms(only(k))) for k in range(4)] == [[name] for name in NAMES]
    with pytest.raises(Refused, match="every weight is 0") as refused:
        made(only(4))
    assert refused.value.where == "/methods/0"
    with pytest.raises(Refused) as unnamed:
        toys.make(spec(AntiDistillation()), teacher=SMALL, student=LARGE)
    assert unnamed.value.where == "/teacher_dataset"


@pytest.mark.parametrize("name", NAMES)
def test_every_term_has_a_gradient(name: str) -> None:
    student, teacher = tapped(LARGE, (), seed=1), tapped(SMALL, (), seed=2).requires_grad_(False)
    loss = terms(AntiDistillation())[name](shown(student, torch.rand(4, *toys.SHAPE), torch.tensor([0, 1, 2, 0]), teacher=teacher))
    gradients = torch.autograd.grad(loss, list(student.parameters()), allow_unused=True)
    assert loss.item() > 0.01
    assert max(gradient.abs().max().item() for gradient in gradients if gradient is not None) > 1e-3


def test_with_the_labels_alone_it_is_ordinary_training_on_the_teachers_data() -> None:
    ours = made(only(0, epochs=3))
    plain = toys.make(spec(teacher=False, recipe=Recipe(epochs=3, batch_size=8, optimizer=SGD(lr=0.05))), student=LARGE)
    before = state_of(ours.student)
    plain.sources = type(plain.sources)(ours.sources.fits[:1], plain.sources.validation, plain.sources.test)
    transfer(ours)
    toys.play(plain, freeze=False)
    after = state_of(ours.student)
    assert all(torch.equal(value, after[name]) for name, value in state_of(plain.student).items())
    assert not torch.equal(before["fc.weight"], after["fc.weight"])


def copied(student: Tapped, teacher: Tapped) -> None:
    """Put the teacher's weights in the first rows and columns of the student's."""
    ours = dict(student.network.named_parameters())
    with torch.no_grad():
        for name, weight in teacher.network.named_parameters():
            ours[name][tuple(slice(extent) for extent in weight.shape)] = weight


@pytest.mark.parametrize("squared", [True, False])
def test_the_distance_is_0_where_the_teachers_block_was_copied_and_counts_that_block_alone(squared: bool) -> None:
    student, teacher = tapped(LARGE, (), seed=1), tapped(SMALL, (), seed=2).requires_grad_(False)
    (term,) = terms(only(1, variant="corrected" if squared else "official")).values()
    scene = shown(student, torch.rand(2, *toys.SHAPE), torch.tensor([0, 1]), teacher=teacher)
    assert term(scene).item() > 1
    copied(student, teacher)
    found = term(scene)
    assert found.item() == 0
    assert all(g is None or g.eq(0).all() for g in torch.autograd.grad(found, list(student.parameters()), allow_unused=True))
    weight, bias = student.network.get_parameter("conv1.weight"), student.network.get_parameter("fc.bias")
    with torch.no_grad():
        weight[4:] += 1.0  # rows that the teacher does not have
        student.network.get_parameter("conv2.weight")[:, 4:] += 1.0  # and columns
        student.network.get_buffer("bn1.running_mean").add_(1.0)  # and what is no weight
        assert term(scene).item() == 0
        weight[3, 1, 2, 2] += 3.0
        bias[2] -= 4.0
    assert term(scene).item() == pytest.approx(25.0 if squared else 5.0, rel=1e-5)


MLP = {"family": "mlp", "input": list(toys.SHAPE), "classes": 3}


def test_a_student_of_another_family_is_refused_though_it_has_a_layer_of_that_name() -> None:
    linear, large = parse({**MLP, "hidden": []}), parse({"family": "vgg", "input": list(toys.SHAPE), "classes": 3})
    with pytest.raises(Refused, match="the student is of the family vgg and the teacher of mlp"):
        shared(measure(linear), measure(large))  # 128 columns of 512, which are something else


@pytest.mark.parametrize(
    ("student", "reason"),
    [
        ({**MLP, "hidden": [4, 6]}, r"'linear1.weight' is \(5, 128\) in the teacher and \(4, 128\) in the student"),
        ({**MLP, "hidden": [6, 2]}, r"'linear2.weight' is \(3, 5\) in the teacher and \(2, 6\) in the student"),
        ({**MLP, "hidden": [6]}, "the student has no 'linear2.weight'"),
        ({"family": "convnet", "input": list(toys.SHAPE), "classes": 3, "channels": [8]}, "the student has no 'linear1.weight'"),
    ],
)
def test_a_student_that_is_narrower_or_has_not_all_the_layers_is_refused_by_the_layer(student: dict[str, Any], reason: str) -> None:
    teacher = parse({**MLP, "hidden": [5, 3]})
    with pytest.raises(Refused, match=reason) as refused:
        toys.make(spec(AntiDistillation(), **DATA), teacher=teacher, student=parse(student))
    assert refused.value.where == "/methods/0/distance_weight"
    without = toys.make(spec(AntiDistillation(distance_weight=0), **DATA), teacher=teacher, student=parse(student))
    assert sorted(without.plan.fits[0].terms) == sorted(set(NAMES) - {"anti_distillation.distance"})


class Seen(nn.Module):
    """Gives its input as its logits, and keeps it; says in which mode it was."""

    def forward(self, x: Tensor) -> Tensor:
        self.x, self.mode = x, self.training
        return 1.0 * x


def test_noise_is_uniform_within_delta_each_samples_own_and_seen_in_eval_mode() -> None:
    network, x, y = Seen(), torch.rand(50, 3), torch.zeros(50, dtype=torch.int64)
    student = Tapped(network).train()
    term = Labels(0.1, official=False)
    scene = shown(student, x, y)
    found = term(scene).item()
    noise = network.x - x
    assert (network.mode, student.training) == (False, True)
    assert found == pytest.approx(nn.functional.cross_entropy(network.x, y).item(), rel=1e-6)
    assert found != pytest.approx(nn.functional.cross_entropy(x, y).item(), rel=1e-6)
    assert 0.095 < noise.abs().max() <= 0.1 + 1e-6
    # 150 draws of a deviation of 0.1 / sqrt(3) = 0.058.
    assert noise.mean().abs() < 0.02
    assert noise.std().item() == pytest.approx(0.1 / math.sqrt(3), rel=0.15)
    assert len({tuple(row.tolist()) for row in noise}) == 50
    assert term(scene).item() == found
    assert term(shown(student, x, y, key="another epoch")).item() != found


@pytest.mark.parametrize(("variant", "p"), [("corrected", 0.7310586), ("official", 0.6652410)])
def test_absent_classes_take_no_probability_and_in_the_published_code_that_of_a_logit_of_0(variant: str, p: float) -> None:
    student, x, y = Tapped(nn.Identity()), torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([1])
    for which in (0, 2):
        (term,) = terms(only(which, variant=variant, delta=1e-6)).values()
        found = term(shown(student, x, y, classes=torch.tensor([True, True, False])))
        assert found.item() == pytest.approx(-math.log(p), rel=1e-5)


def test_what_the_teachers_data_does_not_have_is_not_touched() -> None:
    job = made(AntiDistillation(distance_weight=0, trace_weight=0.1, epochs=2), recipe=RECIPE)
    few = Batches(toys.squares(24, classes=2).named({0: 0, 1: 1}, 3), 8, seed=0)
    job.sources = type(job.sources)([few, job.sources.fits[1]], job.sources.validation, job.sources.test)
    before = state_of(job.student)
    transfer(job)
    after = state_of(job.student)
    assert [torch.equal(before["fc.weight"][row], after["fc.weight"][row]) for row in range(3)] == [False, False, True]
    assert [torch.equal(before["fc.bias"][row], after["fc.bias"][row]) for row in range(3)] == [False, False, True]


RECIPE = Recipe(epochs=1, batch_size=8, optimizer=SGD(lr=0.05, weight_decay=0))


def test_the_official_variant_has_no_trace_and_says_so() -> None:
    official = terms(AntiDistillation(variant="official"))
    assert list(official) == NAMES[:3]
    assert all("no gradient" in official[name].facts()["trace"] for name in (NAMES[0], NAMES[2]))
    assert all(term.facts() == {} for name, term in terms(AntiDistillation()).items())
    distance = official["anti_distillation.distance"]
    assert isinstance(distance, Distance)
    assert not distance.squared
    in_vain = AntiDistillation(variant="official", trace_weight=0.1, probes=8).lesson(measure(SMALL), measure(LARGE)).warnings
    assert [line.split(":")[0] for line in in_vain] == ["trace_weight", "probes"]
    assert AntiDistillation(variant="official").lesson(measure(SMALL), measure(LARGE)).warnings == ()
    assert AntiDistillation(trace_weight=0.1).lesson(measure(SMALL), measure(LARGE)).warnings == ()


def test_the_form_of_the_trace_is_still_known_where_the_training_is_resumed() -> None:
    for form in ("closed_form", "hutchinson"):
        whole = toys.play(made(AntiDistillation(epochs=1, trace=form)))
        again = made(AntiDistillation(epochs=1, trace=form))
        term = again.plan.fits[0].terms["anti_distillation.trace"].term
        assert isinstance(term, Curvature)
        assert term.facts() == {}
        toys.play(again, resume=whole.kept[-1][1], freeze=False)
        assert term.facts() == {"form": form}


def test_a_job_grows_a_network_and_its_result_says_how_the_trace_was_found(tmp_path: Path) -> None:
    mlp = {"family": "mlp", "input": [1, 8, 8], "classes": 10}
    method = {"name": "anti_distillation", "epochs": 2}
    dataset = {"id": "ds_0", "take": {"total": 200}, "validation": 0.0}
    low = {**dataset, "classes": ["0", "1", "2", "3", "4"]}
    folder = fill(tmp_path / "job", networks=({**mlp, "hidden": [8]}, {**mlp, "hidden": [16]}), methods=[method], teacher_dataset=low)
    task = json.loads((folder / "job.json").read_text())
    (folder / "job.json").write_text(json.dumps({**task, "teacher_dataset": task["dataset"]}))
    (folder / "in" / "teacher_dataset.safetensors").write_bytes((folder / "in" / "dataset.safetensors").read_bytes())
    ended = work("run", folder)
    assert (ended.code, ended.log) == (0, "")
    assert ended.result["terms"] == {"anti_distillation.trace": {"form": "closed_form"}}
    assert ended.result["epochs"] == 5
    told = [np.array([values[name] for name in NAMES]) for values in ended.steps.values() if NAMES[0] in values]
    assert len(told) == 14  # 200 of the first five classes in batches of 32, twice
    assert all(values.min() > 0 for values in told)


def test_a_student_that_normalises_otherwise_is_refused_where_weights_are_compared() -> None:
    teacher, student = (measure(parse({**MLP, "hidden": [5]}), normalization={"mean": [mean], "std": [0.2]}) for mean in (0.3, 0.4))
    with pytest.raises(Refused, match="normalises its input otherwise"):
        AntiDistillation().lesson(teacher, student)
    AntiDistillation(distance_weight=0).lesson(teacher, student)
