"""Net2Net: the grown student computes what the teacher computes, and its copies part."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from core.anatomy import measure
from core.errors import Refused
from core.methods.net2net import Net2Net, shares
from core.networks import Family
from tests.core.declared import residual
from tests.core.growing import family, gap, images, network, operate, step, zoo
from tests.core.methods.scenes import moved, state_of

WIDER = {
    "mlp": (zoo("mlp", hidden=[5, 4]), zoo("mlp", hidden=[9, 11])),
    "convnet": (zoo("convnet", channels=[3, 4]), zoo("convnet", channels=[5, 9])),
    "wrn": (zoo("wrn", depth=10, widen=2), zoo("wrn", depth=10, widen=3)),
    "resnet that pads channels": (zoo("resnet", depth=8), zoo("resnet", depth=8, width=2)),
    "resnet that projects": (zoo("resnet", depth=8, shortcut="project"), zoo("resnet", depth=8, shortcut="project", width=2)),
    "mobilenetv2": (zoo("mobilenetv2", width=0.1), zoo("mobilenetv2", width=0.2)),
    "a declared network": (zoo("graph"), zoo("graph", nodes=residual(3, wider=5))),
}
DEEPER = {
    "mlp, deeper": (zoo("mlp", hidden=[5]), zoo("mlp", hidden=[5, 5, 5])),
    "resnet 8 to 14": (zoo("resnet", depth=8), zoo("resnet", depth=14)),
    "resnet 20 to 32": (zoo("resnet", depth=20), zoo("resnet", depth=32)),
    "wrn, deeper": (zoo("wrn", depth=10, widen=1), zoo("wrn", depth=16, widen=1)),
    "convnet of one pixel": (zoo("convnet", channels=[3, 4, 5, 4]), zoo("convnet", channels=[3, 4, 5, 4, 4])),
    "vgg": (zoo("vgg", depth=8), zoo("vgg", depth=11)),
    "a declared network, deeper": (zoo("graph"), zoo("graph", nodes=residual(3, deeper=True))),
}
BOTH = {
    "mlp, both": (zoo("mlp", hidden=[5]), zoo("mlp", hidden=[9, 7, 6])),
    "wrn, both": (zoo("wrn", depth=10, widen=2), zoo("wrn", depth=16, widen=3)),
    "resnet, both": (zoo("resnet", depth=8), zoo("resnet", depth=14, width=2)),
    "convnet, both": (zoo("convnet", channels=[3, 4, 5, 4]), zoo("convnet", channels=[6, 4, 9, 5, 7])),
}


def named(cases: dict[str, tuple[Family, Family]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("teacher", "student"), cases.values(), ids=cases)


@named(WIDER | BOTH | DEEPER)
def test_the_student_is_the_teachers_function(teacher: Family, student: Family) -> None:
    theirs, ours = operate(Net2Net(), teacher, student)
    assert gap(ours, theirs, images(teacher, seed=7)) < 1e-12


@named(WIDER)
def test_wider_is_exact_in_train_mode_on_any_batch(teacher: Family, student: Family) -> None:
    theirs, ours = operate(Net2Net(), teacher, student)
    assert gap(ours.train(), theirs.train(), images(teacher, 12, seed=7)) < 1e-12


@named(DEEPER | BOTH)
def test_deeper_is_exact_in_train_mode_on_the_batch_that_set_it(teacher: Family, student: Family) -> None:
    theirs, ours = operate(Net2Net(), teacher, student)
    assert gap(ours.train(), theirs.train(), images(teacher)) < 1e-12


def test_a_new_batch_norm_is_exact_in_train_mode_on_no_other_batch() -> None:
    theirs, ours = operate(Net2Net(), *DEEPER["convnet of one pixel"])
    assert gap(ours.train(), theirs.train(), images(zoo("mlp"), seed=7)) > 1e-4


@named(WIDER)
def test_in_single_precision_it_differs_by_less_than_a_millionth(teacher: Family, student: Family) -> None:
    lesson, x = Net2Net().lesson(measure(teacher), measure(student)), images(teacher).float()
    theirs, ours = network(teacher, 1).float(), network(student, 2).float()
    lesson.initialise[0](theirs, ours, x, torch.Generator())
    assert gap(ours.eval(), theirs.eval(), x) < 2e-6


@named({name: (teacher, teacher) for name, (teacher, _) in WIDER.items()})
def test_a_student_of_the_same_shape_is_a_copy_bit_for_bit(teacher: Family, student: Family) -> None:
    theirs, ours = operate(Net2Net(), teacher, student)
    assert not moved(state_of(theirs), state_of(ours))


class Tied(nn.Module):
    """Two branches, one depthwise, are concatenated, added to a third, and laid flat."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, a, 3, padding=1)
        self.each = nn.Conv2d(a, a, 3, padding=1, groups=a)
        self.other = nn.Conv2d(2, b, 1)
        self.third = nn.Conv2d(a, a + b, 1)
        self.bn = nn.BatchNorm2d(a + b)
        self.pool = nn.MaxPool2d(4)
        self.fc = nn.Linear(4 * (a + b), 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x).relu()
        h = self.third(h) + torch.cat((self.each(h), self.other(x)), 1)
        logits: Tensor = self.fc(self.pool(self.bn(h).relu()).flatten(1))
        return logits


def test_a_concatenation_a_depthwise_convolution_a_sum_and_a_flattening_at_once() -> None:
    theirs, ours = operate(Net2Net(), family(partial(Tied, 3, 2)), family(partial(Tied, 7, 5)))
    x = images(zoo("mlp"), seed=3)
    assert gap(ours, theirs, x) < 1e-12
    assert gap(ours.train(), theirs.train(), x) < 1e-12


def test_the_shares_of_an_original_add_up_to_one_in_every_row_and_stay_positive() -> None:
    copies = torch.tensor([0, 1, 2, 0, 0, 2])
    drawn = shares(copies, 50, 0.9, torch.Generator().manual_seed(0), torch.float64)
    whole = torch.zeros(50, 3, dtype=torch.float64).index_add_(1, copies, drawn)
    torch.testing.assert_close(whole, torch.ones_like(whole), rtol=0, atol=1e-15)
    assert drawn.min() > 0.1 / 3
    assert drawn.max() < 1.9 / 2 + 1e-9 or drawn[:, 1].eq(1).all()
    assert drawn.std(0)[[0, 2]].min() > 0.05


def first_layer(student: nn.Module) -> Tensor:
    weight = student.get_parameter("linear1.weight").detach()
    return torch.cat((weight, student.get_parameter("linear1.bias").detach()[:, None]), 1)


@pytest.mark.parametrize("optimiser", [partial(torch.optim.SGD, lr=0.1), partial(torch.optim.Adam, lr=0.01)], ids=["sgd", "adam"])
@pytest.mark.parametrize(("method", "parts"), [(Net2Net(split=0), False), (Net2Net(), True), (Net2Net(split=0, noise=0.01), True)])
def test_copies_stay_copies_unless_something_parts_them(method: Net2Net, parts: bool, optimiser: type[torch.optim.Optimizer]) -> None:
    teacher, student = zoo("mlp", hidden=[4]), zoo("mlp", hidden=[8])
    _, ours = operate(method, teacher, student)
    before = first_layer(ours.network)
    step(ours, images(teacher), optimiser)
    after = first_layer(ours.network)
    known = [int((before[:4] - row).abs().sum(1).argmin()) for row in before[4:]]
    apart = max(float((after[original] - after[4 + k]).abs().max()) for k, original in enumerate(known))
    assert (apart > 1e-4) == parts
    assert parts or apart < 1e-12


def test_noise_has_the_deviation_that_is_asked_for_and_moves_copies_alone() -> None:
    teacher, student = zoo("mlp", hidden=[50]), zoo("mlp", hidden=[100])
    theirs, still = operate(Net2Net(split=0), teacher, student)
    _, noisy = operate(Net2Net(split=0, noise=0.1), teacher, student)
    # Another draw of what is repeated would be another difference; both draw that first.
    moves = first_layer(noisy.network)[:, :-1] - first_layer(still.network)[:, :-1]
    assert moves[:50].abs().max() == 0
    assert moves[50:].std().item() == pytest.approx(0.1 * theirs.network.get_parameter("linear1.weight").std().item(), rel=0.05)


@pytest.mark.parametrize("name", ["resnet 8 to 14", "wrn, deeper"])
def test_a_new_residual_block_begins_as_zero_and_learns(name: str) -> None:
    teacher, student = DEEPER[name]
    _, ours = operate(Net2Net(), teacher, student)
    new = [key for key in state_of(ours) if key not in teacher.build().state_dict() and key.endswith(".weight")]
    zeros = [key for key in new if not state_of(ours)[key].any()]
    assert len(zeros) == 3  # one a layer
    before = state_of(ours)
    step(ours, images(teacher), partial(torch.optim.SGD, lr=0.1))
    assert moved(before, state_of(ours)) >= set(zeros)
    step(ours, images(teacher), partial(torch.optim.SGD, lr=0.1))
    assert moved(before, state_of(ours)) >= set(new)


def test_the_statistics_of_other_batch_norms_are_the_teachers() -> None:
    theirs, ours = operate(Net2Net(), *DEEPER["convnet of one pixel"])
    there = state_of(theirs)
    assert not {name for name, value in there.items() if not torch.equal(value, state_of(ours)[name])}


REFUSED = {
    "narrower": (zoo("mlp", hidden=[5, 4]), zoo("mlp", hidden=[9, 3]), "'linear2' is narrower than the teacher's: 3 channels, not 4"),
    "a new layer that is narrower": (zoo("mlp", hidden=[7]), zoo("mlp", hidden=[9, 5]), "'linear2' is narrower .* 5 channels, not 7"),
    "narrower maps": (zoo("wrn", depth=10, widen=3), zoo("wrn", depth=10, widen=2), "'block1.0.shortcut' is narrower"),
    "shallower": (zoo("resnet", depth=14), zoo("resnet", depth=8), "lacks the teacher's layer 'layer1.1.conv1'"),
    "another pooling": (zoo("convnet", channels=[3, 4]), zoo("convnet", channels=[3, 4, 4]), "'max_pool2d' at 'pool2'"),
    "a shortcut of weights": (zoo("wrn", depth=10, widen=1), zoo("wrn", depth=10, widen=2), "new layer 'block1.0.shortcut' is added"),
    "a stride": (zoo("wrn", depth=10, widen=2), zoo("wrn", depth=10, widen=2, stem_stride=2), "'conv1' has another kernel, or other"),
    "another family": (zoo("mlp"), zoo("convnet"), "lacks the teacher's layer 'linear1'"),
    "shuffled channels": (zoo("shufflenetv2", size=0.5), zoo("shufflenetv2", size=1), "the student's layer 'layer2.0.shortcut.conv2'"),
}


@pytest.mark.parametrize(("teacher", "student", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_pair_that_does_not_admit_it_is_refused_with_the_layer_named(teacher: Family, student: Family, reason: str) -> None:
    with pytest.raises(Refused, match=reason) as caught:
        Net2Net().lesson(measure(teacher), measure(student))
    assert caught.value.hint


class Named(nn.Module):
    """A perceptron that deepens in the middle and keeps its names."""

    def __init__(self, depth: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.flatten, self.first, self.act1 = nn.Flatten(), nn.Linear(128, 4), activation()
        self.middle = nn.Sequential(*(layer for _ in range(depth) for layer in (nn.Linear(4, 4), activation())))
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.middle(self.act1(self.first(self.flatten(x)))))
        return logits


def test_only_behind_an_activation_that_changes_nothing_twice_is_it_deepened() -> None:
    allowed: tuple[type[nn.Module], ...] = (nn.ReLU, nn.ReLU6)
    for activation in (*allowed, nn.Tanh, nn.GELU, nn.Sigmoid):
        shallow, deep = (family(partial(Named, depth, activation)) for depth in (0, 1))
        if activation in allowed:
            theirs, ours = operate(Net2Net(), shallow, deep)
            assert gap(ours, theirs, images(shallow)) < 1e-12
        else:
            with pytest.raises(Refused, match=rf"'{activation.__name__.lower()}' at 'middle.1'"):
                Net2Net().lesson(measure(shallow), measure(deep))


def normed(width: int, norm: Callable[[int], nn.Module]) -> Family:
    def make() -> nn.Module:
        return nn.Sequential(nn.Conv2d(2, width, 3), norm(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3))

    return family(make)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "group norm": partial(nn.GroupNorm, 2),
    "layer norm": lambda width: nn.LayerNorm((width, 6, 6)),
    "grouped convolution": lambda width: nn.Conv2d(width, width, 1, groups=2),
}


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_what_looks_at_channels_together_cannot_be_widened_but_stays(norm: Callable[[int], nn.Module]) -> None:
    with pytest.raises(Refused, match=r"the layer '1' "):
        Net2Net().lesson(measure(normed(4, norm)), measure(normed(8, norm)))
    theirs, ours = operate(Net2Net(), normed(4, norm), normed(4, norm))
    assert gap(ours, theirs, images(zoo("mlp"))) == 0


def test_another_normalisation_or_other_classes_or_an_old_report_is_refused() -> None:
    teacher, student = zoo("mlp", hidden=[4]), zoo("mlp", hidden=[8])
    plain, other = measure(teacher), measure(student, normalization={"mean": [0.5], "std": [0.25]})
    with pytest.raises(Refused, match="normalises its input otherwise"):
        Net2Net().lesson(plain, other)
    same = measure(teacher, normalization={"mean": [0.5, 0.5], "std": [0.25, 0.25]})
    assert Net2Net().lesson(same, other).initialise
    with pytest.raises(Refused, match="'fc' has 5 outputs in the student and 3 in the teacher"):
        Net2Net().lesson(plain, measure(zoo("mlp", hidden=[8], classes=5)))
    with pytest.raises(Refused, match="the teacher's report is older"):
        Net2Net().lesson(plain.model_copy(update={"graph": ()}), measure(student))


def test_a_person_is_warned_who_lets_copies_be_copies() -> None:
    narrow, wide = measure(zoo("mlp", hidden=[4])), measure(zoo("mlp", hidden=[8]))
    (warning,) = Net2Net(split=0).lesson(narrow, wide).warnings
    assert "'split': 0.5" in warning
    assert not Net2Net().lesson(narrow, wide).warnings
    assert not Net2Net(split=0).lesson(narrow, narrow).warnings
