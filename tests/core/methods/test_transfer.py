"""Transfer: the body is the teacher's and waits, the head learns first."""

import pytest
import torch

from core.anatomy import measure
from core.errors import Refused
from core.methods.kd import KD
from core.methods.transfer import Transfer, head_of
from core.networks import Family, families
from tests.core import toys
from tests.core.growing import zoo
from tests.core.methods.scenes import moved, state_of, transfer
from tests.core.toys import Toy


def test_the_head_of_every_family_is_its_last_linear_layer() -> None:
    assert {name: head_of(measure(zoo(name))) for name in families()} == dict.fromkeys(families(), "fc")


@pytest.mark.parametrize("classes", [3, 5])
def test_in_the_frozen_epochs_the_head_alone_moves(classes: int) -> None:
    """Statistics of batch norms too stay as they are, bit for bit."""
    job = toys.make(toys.spec(Transfer(epochs=3)), teacher=Toy(classes=classes), student=Toy(dropout=0.2))
    assert job.teacher is not None
    fresh, theirs = state_of(job.student), state_of(job.teacher)
    transfer(job)
    now = state_of(job.student)
    head = {"fc.weight", "fc.bias"}
    assert not moved({name: theirs[name] for name in now}, {name: value for name, value in now.items() if name not in head})
    assert moved(fresh, now) >= head


def test_afterwards_everything_learns() -> None:
    job = toys.make(toys.spec(Transfer(epochs=1)), teacher=Toy(), student=Toy())
    assert job.teacher is not None
    theirs = state_of(job.teacher)
    weights = toys.play(job, freeze=False).weights
    assert moved(theirs, weights) == set(theirs)


def test_the_frozen_epochs_are_three_with_the_jobs_recipe_and_data() -> None:
    job = toys.make(toys.spec(Transfer(), KD()), teacher=Toy(), student=Toy())
    frozen, training = job.plan.fits
    assert (frozen.recipe.epochs, frozen.data, frozen.only) == (3, "job", ("fc",))
    assert frozen.recipe.model_copy(update={"epochs": 2}) == training.recipe
    assert sorted(training.terms) == ["kd", "task"]


def test_the_head_begins_as_the_student_has_it() -> None:
    job = toys.make(toys.spec(Transfer()), teacher=Toy(), student=Toy())
    fresh = state_of(job.student)
    for surgery in job.plan.surgeries:
        surgery(job.teacher, job.student, torch.zeros(2, *toys.SHAPE), torch.Generator())
    assert not {"fc.weight", "fc.bias"} & moved(fresh, state_of(job.student))


@pytest.mark.parametrize(
    ("teacher", "student", "reason"),
    [
        (zoo("mlp", hidden=[5, 4]), zoo("mlp", hidden=[5, 6]), r"the weight of the layer 'linear2' has the shape \(6, 5\) in the student"),
        (zoo("mlp", hidden=[5]), zoo("mlp", hidden=[5, 5]), "the layer 'linear2' is in the student alone"),
        (zoo("resnet", depth=14), zoo("resnet", depth=8), "the layer 'layer1.1.conv1' is in the teacher alone"),
        (zoo("resnet", depth=8), zoo("resnet", depth=8, stem_stride=2), "the layer 'conv1' computes something else"),
    ],
)
def test_bodies_that_differ_are_refused_with_the_layer_named(teacher: Family, student: Family, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        Transfer().lesson(measure(teacher), measure(student))


def test_another_normalisation_is_refused() -> None:
    network = zoo("mlp")
    with pytest.raises(Refused, match="normalises its input otherwise"):
        Transfer().lesson(measure(network), measure(network, normalization={"mean": [0.5], "std": [1]}))
