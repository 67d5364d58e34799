"""Padding: the teacher's block in the student, and what the rest does to the function and to learning."""

from functools import partial

import pytest
import torch

from core.anatomy import measure
from core.errors import Refused
from core.methods.padding import Fill, Padding
from core.networks import Family
from tests.core.growing import gap, images, operate, step, zoo
from tests.core.methods.scenes import moved, state_of

PAIRS = {
    "mlp": (zoo("mlp", hidden=[5, 4]), zoo("mlp", hidden=[9, 11])),
    "convnet": (zoo("convnet", channels=[3, 4]), zoo("convnet", channels=[5, 9])),
    "wrn": (zoo("wrn", depth=10, widen=2), zoo("wrn", depth=10, widen=3)),
    "resnet that pads channels": (zoo("resnet", depth=8), zoo("resnet", depth=8, width=2)),
    "more classes": (zoo("mlp", hidden=[5]), zoo("mlp", hidden=[9], classes=7)),
}
every_pair = pytest.mark.parametrize(("teacher", "student"), PAIRS.values(), ids=PAIRS)
sgd = partial(torch.optim.SGD, lr=0.1)


@every_pair
@pytest.mark.parametrize("fill", ["zero", "outgoing_zero"])
def test_it_preserves_the_function(teacher: Family, student: Family, fill: Fill) -> None:
    theirs, ours = operate(Padding(fill=fill), teacher, student)
    x = images(teacher, seed=7)
    for training in (False, True):
        with torch.no_grad():
            answers, wanted = ours.train(training)(x).logits[:, : teacher.classes], theirs.train(training)(x).logits
        assert (answers - wanted).abs().max() < 1e-14 * max(1.0, wanted.abs().max().item())


def test_zeros_are_exact_to_the_last_bit_but_for_the_order_of_sums() -> None:
    theirs, ours = operate(Padding(fill="zero"), *PAIRS["mlp"])
    with torch.no_grad():
        assert (ours(images(PAIRS["mlp"][0])).logits - theirs(images(PAIRS["mlp"][0])).logits).abs().max() <= 2.3e-16


@every_pair
def test_the_teachers_block_is_where_it_was_put(teacher: Family, student: Family) -> None:
    """In the corner, except behind a shortcut that pads channels on both sides: there in the middle."""
    if "shortcut" in type(student).model_fields:
        small, large = (state_of(network)["layer2.0.conv2.weight"] for network in operate(Padding(), teacher, student))
        # The first layer's 16 channels lie at 8 to 23 of the teacher's 32, and its 32 at 16 to 47 of the student's 64.
        assert torch.equal(large[16:32, :32], small[8:24])
        return
    for fill in ("zero", "outgoing_zero", "uniform"):
        theirs, ours = operate(Padding(fill=fill), teacher, student)
        for name, value in state_of(theirs).items():
            corner = state_of(ours)[name][tuple(slice(extent) for extent in value.shape)]
            assert torch.equal(corner, value), name


def test_what_is_filled_with_zeros_stays_zero_for_ever() -> None:
    """Published as an initialiser, and yet a network of the teacher's size."""
    teacher, student = PAIRS["mlp"]
    _, ours = operate(Padding(fill="zero"), teacher, student)
    before = state_of(ours)
    step(ours, images(teacher), partial(torch.optim.Adam, lr=0.01), steps=20)
    after = state_of(ours)
    for name, small in teacher.build().state_dict().items():
        new = torch.ones_like(after[name], dtype=torch.bool)
        new[tuple(slice(extent) for extent in small.shape)] = False
        assert new.any() == (name != "fc.bias")
        assert not after[name][new].any(), name
        assert not torch.equal(after[name], before[name]), name


@pytest.mark.parametrize("pair", ["mlp", "convnet", "wrn"])
def test_where_only_the_outgoing_weights_are_zero_everything_learns(pair: str) -> None:
    teacher, student = PAIRS[pair]
    _, ours = operate(Padding(), teacher, student)
    before = state_of(ours)
    step(ours, images(teacher), sgd, steps=3)
    after = state_of(ours)
    for name, small in teacher.build().state_dict().items():
        if small.ndim >= 2:
            rows, columns = small.shape[:2]
            # ReLUs that are shut for all six images leave some where they were.
            for part in (after[name] - before[name])[rows:], (after[name] - before[name])[:rows, columns:]:
                assert not part.numel() or part.count_nonzero() > part.numel() / 10, name


def test_new_units_see_everything_and_are_seen_by_none_of_the_old() -> None:
    teacher, student = PAIRS["mlp"]
    _, ours = operate(Padding(), teacher, student)
    weight, there = state_of(ours)["linear2.weight"], state_of(operate(Padding(), student, student)[0])
    assert not weight[:4, 5:].any()
    assert weight[4:].all()
    assert there["linear2.weight"].shape == weight.shape


def test_uniform_is_within_its_bounds_and_fills_them() -> None:
    teacher, student = zoo("mlp", hidden=[4, 4]), zoo("mlp", hidden=[100, 100])
    _, ours = operate(Padding(fill="uniform"), teacher, student)
    for name, inputs in (("linear1", 128), ("linear2", 100), ("fc", 100)):
        weight, bias = state_of(ours)[f"{name}.weight"], state_of(ours)[f"{name}.bias"]
        drawn = torch.cat((weight[4:].flatten(), bias[4:])) if name != "fc" else weight[:, 4:].flatten()
        bound = inputs**-0.5
        assert drawn.abs().max() <= bound
        assert drawn.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
    theirs, ours = operate(Padding(fill="uniform"), teacher, student)
    assert gap(ours, theirs, images(teacher)) > 0.01


def test_uniform_draws_from_the_generator_that_it_is_given() -> None:
    one, same, other = (operate(Padding(fill="uniform"), *PAIRS["convnet"], seed=seed)[1] for seed in (0, 0, 1))
    assert not moved(state_of(one), state_of(same))
    assert moved(state_of(one), state_of(other))


def test_zero_warns_and_says_what_to_take_instead() -> None:
    narrow, wide = map(measure, PAIRS["mlp"])
    (warning,) = Padding(fill="zero").lesson(narrow, wide).warnings
    assert "never learn" in warning
    assert "outgoing_zero" in warning
    assert not Padding().lesson(narrow, wide).warnings
    assert not Padding(fill="zero").lesson(narrow, narrow).warnings


@pytest.mark.parametrize(
    ("teacher", "student", "reason"),
    [
        (zoo("mlp", hidden=[5]), zoo("mlp", hidden=[4]), "'linear1' is narrower than the teacher's: 4 channels, not 5"),
        (zoo("mlp", hidden=[5]), zoo("mlp", hidden=[5, 5]), "the student's layer 'linear2' is not in the teacher"),
        (zoo("mlp", hidden=[5], classes=4), zoo("mlp", hidden=[5]), "'fc' is narrower than the teacher's: 3 channels, not 4"),
        (zoo("wrn", depth=10, widen=2), zoo("wrn", depth=16, widen=2), "'block1.1.bn1' is not in the teacher"),
    ],
)
def test_a_pair_that_does_not_admit_it_is_refused_with_the_layer_named(teacher: Family, student: Family, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        Padding().lesson(measure(teacher), measure(student))
