"""What every method of the catalogue must do; a new file in `core/methods` is tested by being there.

A teacher that has learnt something teaches a smaller student, or, where a method refuses that, one that is larger, or its equal. Each
term of a method is looked at alone, and each surgery.
"""

import contextlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import jsonschema
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from core.anatomy import match, measure
from core.bench import Bench
from core.data import Batches
from core.data.report import UNLABELLED
from core.errors import Refused
from core.fit import fit
from core.method import Fit, Lesson, Method, Weighted
from core.methods import catalogue
from core.methods.kd import KD
from core.networks import Family
from core.objective import losses_of, watched
from core.optim import SGD, Constant, Recipe
from core.pages import docs_of
from core.source import Live
from core.taps import Pair
from tests.core import toys
from tests.core.methods.scenes import moved, state_of
from tests.core.toys import Job, Toy, ToyMethod, spec, tapped

SMALL, LARGE, LARGER = Toy(width=4), Toy(width=6), Toy(width=8)
DATA = {"teacher_dataset": {"id": "ds_2", "validation": 0.0}}

METHODS: dict[str, type[Method]] = {**catalogue(), "toy": ToyMethod}
PLAYED = {
    ":".join([name, *(f"{key}={value}" for key, value in example.items())]): kind.model_validate({"name": name, **example})
    for name, kind in METHODS.items()
    for example in kind.examples
}
every_kind = pytest.mark.parametrize("kind", METHODS.values(), ids=METHODS)


@cache
def wise(teacher: Family) -> Mapping[str, Tensor]:
    """The weights of a teacher that was trained, by this same engine, with no method at all."""
    recipe = Recipe(epochs=12, batch_size=8, optimizer=SGD(lr=0.05))
    return toys.play(toys.make(spec(teacher=False, recipe=recipe), student=teacher), freeze=False).weights


@cache
def networks(method: Method) -> tuple[Toy, Toy]:
    """A teacher and a student that a method takes: the first of these pairs that it does not refuse; the first, if it refuses all."""
    pairs = ((LARGE, SMALL), (LARGE, LARGER), (SMALL, SMALL))
    for teacher, student in pairs:
        with torch.random.fork_rng(devices=[]), contextlib.suppress(Refused):
            method.lesson(measure(teacher), measure(student))
            return teacher, student
    return pairs[0]


def made(*methods: Method, dropout: float = 0.0, initial: int = 0, **asked: Any) -> Job:
    teacher, student = networks(methods[0])
    student = student.model_copy(update={"dropout": dropout})
    return toys.make(spec(*methods, **DATA | asked), teacher=teacher, student=student, initial=initial, teacher_weights=wise(teacher))


def lesson(method: Method) -> Lesson:
    teacher, student = networks(method)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return method.lesson(measure(teacher), measure(student))


def has_terms(method: Method) -> bool:
    return bool(lesson(method).train or lesson(method).transfer)


every_method = pytest.mark.parametrize("method", PLAYED.values(), ids=PLAYED)
TAUGHT = {name: method for name, method in PLAYED.items() if has_terms(method)}
every_taught = pytest.mark.parametrize("method", TAUGHT.values(), ids=TAUGHT)
OPERATED = {name: method for name, method in PLAYED.items() if lesson(method).initialise}
every_operated = pytest.mark.parametrize("method", OPERATED.values(), ids=OPERATED)


def alone(method: Method, *, steps: int, twin: bool = False) -> list[tuple[str, Bench, Live]]:
    """A bench for each term of each fit of a method, with that term alone at weight 1."""
    found = []
    for fit_of in (*lesson(method).transfer, Fit(lesson(method).train, Recipe())):
        for name in fit_of.terms:
            term = fit_of.terms[name].term
            large, small = networks(method)
            student = tapped(large if twin else small, term.student_taps, seed=3)
            teacher = tapped(large, term.teacher_taps, seed=4)
            teacher.network.load_state_dict(dict(wise(large)))
            if twin:
                student.network.load_state_dict(dict(wise(large)))
            recipe = Recipe(epochs=max(1, steps // 3), batch_size=8, schedule=Constant(), optimizer=SGD(lr=0.02, weight_decay=0))
            batches = Batches(toys.squares(24), 8, seed=0)
            bench = Bench([Fit({name: Weighted(term, 1.0)}, recipe)], [batches.steps], student, teacher, seed=0, report_seconds=0)
            found.append((name, bench, Live(batches, teacher)))
    return found


def loss_of(bench: Bench, source: Live, labels: Callable[[Tensor], Tensor] = Tensor.clone) -> Tensor:
    batch, views = source(0, 0, bench.terms)
    losses, _ = losses_of(bench, replace(batch, y=labels(batch.y)), views, terms=bench.terms, epoch=0, source=source)
    (loss,) = losses.values()
    return loss


@pytest.mark.parametrize("name", catalogue())
def test_the_name_is_the_files_name_and_the_file_reads_like_its_paper(name: str) -> None:
    kind = catalogue()[name]
    assert kind.model_fields["name"].default == name
    assert inspect.getmodule(kind).__name__ == f"core.methods.{name}"  # type: ignore[union-attr]
    docs = docs_of(kind)
    assert 20 < len(docs.title) <= 120
    assert "\n\n    " in docs.idea, "no formula: an indented line"
    assert docs.use, 'no paragraph begins "Use it"'
    assert docs.cost, 'no paragraph begins "Cost:"'
    assert ">>>" in docs.by_hand, "no doctest between the cost and the reference"
    assert docs.reference, 'no paragraph begins "Reference:"'
    assert len(inspect.getsource(inspect.getmodule(kind)).splitlines()) <= 150  # type: ignore[arg-type]
    assert len(kind.reference) > 20
    assert kind.__doc__
    assert all(field.description for field_name, field in kind.model_fields.items() if field_name != "name")


@every_method
def test_the_schema_round_trips_and_unknown_keys_are_refused(method: Method) -> None:
    document = method.model_dump(mode="json")
    jsonschema.validate(document, method.model_json_schema())
    assert type(method).model_validate(document) == method
    with pytest.raises(ValidationError, match="Extra inputs"):
        type(method).model_validate({**document, "no_such_parameter": 1})


@every_method
def test_a_lesson_is_pure(method: Method) -> None:
    teacher, student = map(measure, networks(method))
    before = (teacher.model_dump_json(), student.model_dump_json())
    first, second = lesson(method), lesson(method)
    assert (teacher.model_dump_json(), student.model_dump_json()) == before
    assert list(first.train) == list(second.train)
    assert len(first.initialise) == len(second.initialise)
    for one, other in zip((*first.transfer, Fit(first.train, Recipe())), (*second.transfer, Fit(second.train, Recipe())), strict=True):
        assert (list(one.terms), one.only, one.data, one.teacher_mode, one.recipe) == (
            list(other.terms), other.only, other.data, other.teacher_mode, other.recipe,
        )  # fmt: skip
        for name in one.terms:
            ours, theirs = one.terms[name].term.state_dict(), other.terms[name].term.state_dict()
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@every_method
def test_term_names_are_their_own(method: Method) -> None:
    names = {name for fit_of in (*lesson(method).transfer, Fit(lesson(method).train, Recipe())) for name in fit_of.terms}
    assert not names & {"task", "loss", "lr"}
    assert not any("/" in name for name in names)


@every_taught
def test_each_term_is_a_finite_scalar_with_a_gradient_in_the_student_and_none_in_the_teacher(method: Method) -> None:
    for name, bench, source in alone(method, steps=3):
        loss = loss_of(bench, source)
        assert loss.shape == (), name
        assert loss.isfinite(), name
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = [parameter.grad for parameter in bench.student.network.parameters() if parameter.grad is not None]
        assert gradients, name
        assert all(gradient.isfinite().all() for gradient in gradients), name
        assert any(gradient.abs().sum() > 0 for gradient in gradients), name
        assert bench.teacher is not None
        assert all(parameter.grad is None for parameter in bench.teacher.parameters()), name


@every_taught
def test_where_student_and_teacher_are_one_network_each_term_has_its_stated_optimum(method: Method) -> None:
    for name, bench, source in alone(method, steps=3, twin=True):
        term = bench.terms[name]
        if term.optimum is None:
            continue
        bench.student.eval()  # the teacher is, and batch statistics of a batch are not those of training
        loss = loss_of(bench, source)
        assert loss.item() == pytest.approx(term.optimum, abs=1e-5), name
        gradients = torch.autograd.grad(loss, list(bench.student.network.parameters()), allow_unused=True)
        assert all(gradient is None or gradient.abs().max() < 1e-3 for gradient in gradients), name


def answered(method: Method, labels: Callable[[Tensor], Tensor]) -> dict[str, list[Tensor]]:
    """Of each term, its loss and what it watches with other labels; nothing of one that reads labels and fails."""
    found = dict[str, list[Tensor]]()
    for name, bench, source in alone(method, steps=3):
        with contextlib.suppress(RuntimeError, IndexError) if bench.terms[name].reads_labels else contextlib.nullcontext():
            held = replace(source(0, 0, bench.terms)[0], y=labels(torch.arange(8) % toys.CLASSES))
            found[name] = [loss_of(bench, source, labels).detach(), *watched(bench, held, bench.terms, source).values()]
    return found


@every_taught
def test_a_term_reads_labels_only_where_it_says_so(method: Method) -> None:
    with_labels, without = answered(method, Tensor.clone), answered(method, lambda y: torch.full_like(y, UNLABELLED))
    for name, bench, _ in alone(method, steps=3):
        assert bench.terms[name].reads_labels or all(map(torch.equal, with_labels[name], without[name])), name


@every_taught
def test_thirty_steps_lower_each_term(method: Method) -> None:
    for name, bench, source in alone(method, steps=30):
        told = [event.values[name] for event in fit(bench, source, None) if event is not None]  # type: ignore[union-attr]
        assert sum(told[-3:]) < sum(told[:3]), name


@every_method
def test_the_students_state_dict_keys_are_unchanged_and_it_runs_without_the_engine(method: Method) -> None:
    job = made(method)
    before = list(job.student.network.state_dict())
    toys.play(job, freeze=False)
    assert list(job.student.network.state_dict()) == before
    plain = networks(method)[1].build()
    plain.load_state_dict(job.student.network.state_dict())


@every_method
def test_interrupted_anywhere_and_resumed_equals_uninterrupted(method: Method) -> None:
    whole = toys.play(made(method, dropout=0.2))
    for told, blob in whole.kept:
        again = made(method, dropout=0.2, initial=50)
        toys.scramble(again)
        rest = toys.play(again, resume=blob, freeze=False)
        assert whole.events[:told] + rest.events == whole.events
        assert all(torch.equal(value, rest.weights[name]) for name, value in whole.weights.items())


def test_a_method_does_something() -> None:
    assert PLAYED.keys() == TAUGHT.keys() | OPERATED.keys()


@every_operated
def test_a_surgery_changes_the_student_alone_and_draws_from_its_own_generator(method: Method) -> None:
    def operated(seed: int, theirs: int) -> Mapping[str, Tensor]:
        job = made(method)
        assert job.teacher is not None
        teacher = state_of(job.teacher)
        modes = [module.training for network in (job.teacher, job.student) for module in network.modules()]
        before, x = state_of(job.student), job.sources.fits[-1](0, 0).x
        torch.manual_seed(theirs)
        drawn = torch.get_rng_state()
        for surgery in job.plan.surgeries:
            surgery(job.teacher, job.student, x, torch.Generator().manual_seed(seed))
        assert torch.equal(torch.get_rng_state(), drawn)
        assert [module.training for network in (job.teacher, job.student) for module in network.modules()] == modes
        assert not moved(teacher, state_of(job.teacher))
        assert moved(before, state_of(job.student))
        assert all(parameter.requires_grad and parameter.grad is None for parameter in job.student.network.parameters())
        return state_of(job.student)

    assert not moved(operated(0, theirs=1), operated(0, theirs=2))


@every_method
def test_it_adds_to_kd(method: Method) -> None:
    job = made(*([method] if isinstance(method, KD) else [method, KD()]))
    assert "kd" in job.plan.fits[-1].terms
    played = toys.play(job, freeze=False)
    assert all(value.isfinite().all() for value in played.weights.values())


@every_method
def test_a_bad_tap_is_refused_by_name(method: Method) -> None:
    if "pairs" not in type(method).model_fields or getattr(method, "output", "maps") != "maps":
        return
    for pair, place in (("nowhere", "relu1"), 0), (("relu1", "nowhere"), 1):
        bad = method.model_copy(update={"pairs": (Pair(*pair),), "layer_weights": None})
        with pytest.raises(Refused, match="'nowhere'") as caught:
            made(bad)
        assert caught.value.where == f"/methods/0/pairs/0/{place}"


@every_method
def test_the_pairs_it_takes_by_default_are_made_of_those_that_it_names(method: Method) -> None:
    assert (method.pairs_by is None) == ("pairs" not in type(method).model_fields)
    if method.pairs_by is None:
        return
    teacher, student = map(measure, networks(method))
    default, decided = match(teacher, student, method.pairs_by), made(method).plan
    for looked, taps in (
        (decided.teacher_taps, {pair.teacher for pair in default}),
        (decided.student_taps, {pair.student for pair in default}),
    ):
        # Of a pre-activation it may take what the activation behind it gives.
        assert set(looked) <= taps | {tap.removesuffix(":in") for tap in taps}
