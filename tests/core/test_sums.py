"""Methods add up: a sum trains the fits and the terms that its summands bring, and what cannot be added is refused with the reason."""

from typing import Any

import pytest

from core.errors import Refused
from core.method import Method
from core.methods.ab import AB
from core.methods.at import AT
from core.methods.bss import BSS
from core.methods.fitnet import Fitnet
from core.methods.fsp import FSP
from core.methods.jacobian import Jacobian
from core.methods.kd import KD
from core.methods.wasserstein import Wasserstein
from core.networks import parse
from core.optim import SGD, Recipe
from tests.core import toys
from tests.core.toys import spec

TWO_STEPS = Recipe(epochs=1, batch_size=8, optimizer=SGD(lr=0.02))
AB_, FITNET, FSP_ = AB(epochs=1), Fitnet(epochs=1), FSP(epochs=1, connectors=True)
WASSERSTEIN = Wasserstein(epsilon=0.01)


def refusal(*methods: Method, **more: Any) -> Refused:
    with pytest.raises(Refused) as refused:
        toys.make(spec(*methods), **more)
    return refused.value


@pytest.mark.parametrize(
    ("methods", "fits"),
    [
        ([AT(), KD()], [["at", "kd", "task"]]),
        ([Jacobian(), KD()], [["jacobian", "kd", "task"]]),
        ([AB_, KD()], [["ab"], ["kd", "task"]]),
        ([FSP_, KD()], [["fsp"], ["kd", "task"]]),
        ([FITNET, KD()], [["fitnet"], ["kd", "task"]]),
        ([AB_, AT(), KD()], [["ab"], ["at", "kd", "task"]]),
        ([FITNET, AB_, KD()], [["fitnet"], ["ab"], ["kd", "task"]]),
        ([BSS(), KD()], [["bss", "kd", "task"]]),
        ([FSP_, BSS()], [["fsp"], ["bss", "task"]]),
        ([AB_, BSS(variant="official"), AT(), KD()], [["ab"], ["at", "bss", "kd", "task"]]),
        ([WASSERSTEIN, KD()], [["kd", "task", "wasserstein"]]),
        ([FITNET, WASSERSTEIN, BSS()], [["fitnet"], ["bss", "task", "wasserstein"]]),
        ([AT(), Jacobian(), KD()], [["at", "jacobian", "kd", "task"]]),
        ([FSP_, KD(), FITNET.model_copy(update={"joint": True}), AB_], [["fsp"], ["ab"], ["fitnet", "kd", "task"]]),
    ],
    ids=lambda value: "+".join(method.name for method in value) if isinstance(value[0], Method) else "",
)
def test_a_sum_trains_the_fits_and_terms_of_its_summands_in_their_order(methods: list[Method], fits: list[list[str]]) -> None:
    job = toys.make(spec(*methods, recipe=TWO_STEPS), n=16)
    assert [sorted(fit.terms) for fit in job.plan.fits] == fits
    assert job.plan.steps == 2 * len(fits)
    before = {name: value.clone() for name, value in job.student.network.state_dict().items()}
    played = toys.play(job, freeze=False)
    assert all(value.isfinite().all() for value in played.weights.values())
    assert not played.weights["conv1.weight"].equal(before["conv1.weight"])


@pytest.mark.parametrize(
    ("methods", "term"),
    [
        ([KD(), KD(temperature=2.0)], "kd"),
        ([AT(), KD(), AT(weight=1.0)], "at"),
        ([Fitnet(joint=True), Fitnet(joint=True, weight=1.0)], "fitnet"),
        ([Jacobian(), Jacobian(output="maps")], "jacobian"),
        ([BSS(), KD(), BSS(variant="official")], "bss"),
    ],
)
def test_two_methods_that_bring_one_term_are_refused_at_the_second(methods: list[Method], term: str) -> None:
    refused = refusal(*methods)
    assert refused.where == f"/methods/{len(methods) - 1}/name"
    assert f"two methods bring the term {term!r}" in refused.reason


def test_the_two_stage_and_the_joint_form_of_a_method_bring_one_term_to_two_fits() -> None:
    job = toys.make(spec(FITNET, FITNET.model_copy(update={"joint": True}), recipe=TWO_STEPS))
    assert [sorted(fit.terms) for fit in job.plan.fits] == [["fitnet"], ["fitnet", "task"]]


def test_with_transfer_methods_alone_and_no_task_there_is_nothing_to_train() -> None:
    idle = TWO_STEPS.model_copy(update={"task_weight": 0.0})
    with pytest.raises(Refused, match="nothing to learn") as refused:
        toys.make(spec(AB_, FITNET, FSP_, recipe=idle))
    assert refused.value.where == "/recipe/task_weight"
    toys.make(spec(AB_, KD(), recipe=idle))


@pytest.mark.parametrize("method", [AT(), AB(), Fitnet(), FSP(connectors=True), Jacobian(output="maps")], ids=lambda method: method.name)
def test_networks_that_share_no_size_are_refused_where_pairs_are_wanted(method: Method) -> None:
    coarse = parse({"family": "wrn", "depth": 10, "stem_stride": 4, "input": [2, 8, 8], "classes": 3})
    refused = refusal(KD(), method, student=coarse)
    assert refused.where == "/methods/1/pairs"
    assert "no stage of the teacher has the size of one of the student: 8x8, 4x4 and 2x2, 1x1" in refused.reason
    assert "name the pairs yourself" in refused.hint
