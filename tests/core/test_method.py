"""The vocabulary: scenes, weights, and how lessons add up."""

import pytest
import torch

from core.anatomy import measure
from core.errors import Refused
from core.method import Clock, Fit, Lesson, Scene, Term, Weighted
from core.methods import catalogue
from core.methods.kd import KD
from core.optim import Recipe
from core.random import key_of, uniforms
from core.taps import Tapped, View
from tests.core.toys import DOMAIN, Toy, ToyMethod, loosen

NETWORK = Tapped(torch.nn.Identity())


def lesson(name: str, operations: int = 0) -> Lesson:
    term = Weighted(Term(), 1.0)
    return Lesson((loosen(name),) * operations, (Fit({name: term}, Recipe()),), {name: term})


def test_lessons_add_up_in_order_and_the_empty_lesson_changes_nothing() -> None:
    first, second = lesson("a", 1), lesson("b", 2)
    both = first + second
    assert both.initialise == first.initialise + second.initialise
    assert both.transfer == first.transfer + second.transfer
    assert list(both.train) == ["a", "b"]
    assert Lesson() + first == first == first + Lesson()


def test_warnings_of_all_methods_are_told() -> None:
    assert (Lesson(warnings=("one",)) + Lesson() + Lesson(warnings=("two",))).warnings == ("one", "two")


def test_two_methods_that_bring_the_same_term_are_refused() -> None:
    with pytest.raises(Refused, match="two methods bring the term 'a'"):
        lesson("a") + lesson("a")


def test_a_scene_draws_by_row_and_not_by_place() -> None:
    def scene(index: torch.Tensor) -> Scene:
        n = len(index)
        return Scene(torch.zeros(n), index, index, View(torch.zeros(n, 2), {}), None, NETWORK, None, None, key_of(1), DOMAIN)

    whole = scene(torch.arange(10)).random(2, stream=3)
    assert torch.equal(whole, uniforms(key_of(1), torch.arange(10), 2, 3))
    assert torch.equal(scene(torch.tensor([7, 2])).random(2, stream=3), whole[[7, 2]])


def test_a_note_keeps_no_graph() -> None:
    index = torch.arange(2)
    scene = Scene(index, index, index, View(torch.zeros(2, 2), {}), None, NETWORK, None, None, key_of(1), DOMAIN)
    scene.note("toy.size", torch.ones((), requires_grad=True) * 2)
    assert scene.notes["toy.size"].item() == 2
    assert not scene.notes["toy.size"].requires_grad


def test_a_weight_follows_the_clock_and_a_constant_zero_sleeps() -> None:
    clock = Clock(1, 4, 10, 40)
    assert clock.progress == 0.25
    assert Weighted(Term(), lambda clock: clock.progress).at(clock) == 0.25
    assert Weighted(Term(), 0.5).at(clock) == 0.5
    assert Weighted(Term(), 0.0).asleep
    assert not Weighted(Term(), lambda _: 0.0).asleep


def test_methods_are_found_by_their_place() -> None:
    assert catalogue()["kd"] is KD
    assert list(catalogue()) == sorted(catalogue())


def test_the_toy_method_uses_every_part_of_the_vocabulary() -> None:
    made = ToyMethod().lesson(measure(Toy(width=6)), measure(Toy()))
    terms = [weighted.term for terms in (*(fit.terms for fit in made.transfer), made.train) for weighted in terms.values()]
    assert made.initialise
    assert {fit.data for fit in made.transfer} == {"job", "teacher"}
    assert any(fit.only for fit in made.transfer)
    assert {term.teacher for term in terms} == {"none", "view", "network"}
    assert any(term.differentiates_input for term in terms)
    assert any(list(term.buffers()) for term in terms)
    assert any(list(term.parameters()) for term in terms)
    assert any(type(term).watch is not Term.watch for term in terms)
    assert any(callable(weighted.weight) for weighted in made.train.values())
