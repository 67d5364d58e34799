"""The trace of the Hessian of a network's cross-entropy by its weights, as a loss: exact where it can be, estimated elsewhere.

Where every logit is affine in each single weight, the second derivative of a logit by one weight is 0, and what is left of the Hessian's
diagonal is that of the Gauss-Newton matrix. With p the softmax of a sample's logits and g_c the gradient of -log p_c by the weights,

    tr H = mean over the samples of sum_c p_c |g_c|^2

whatever the labels. That holds for layers that are linear, convolutions or batch norms in eval mode, between which everything is linear in
pieces (ReLU, pooling, sums), if no weight is used twice; a bias counts like a weight. Of a linear layer |g_c|^2 is the squared length of
what enters it, and 1 for the bias, times that of the derivative by what it gives, so no second derivative is taken at all.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from core.errors import Refused
from core.method import Passes, Scene, Term
from core.random import signs
from core.tangent import Nonlinear, Record, tensors
from core.taps import Tapped
from core.terms import CrossEntropy, log_softmax

Form = Literal["auto", "closed_form", "hutchinson"]


class Trace(NamedTuple):
    """A trace, a scalar with a gradient; the standard error of its estimate, None where it is exact; and the form that ran."""

    value: Tensor
    error: Tensor | None
    form: Form


class NotAffine(Exception):
    """A network for which the closed form would be wrong; the message says why."""


class Curvature(Term):
    """The trace where it is above 0, and 0 below: that of a smooth network has no lower bound.

    Of an estimate it so minimises E max(0, v^T H v), which is at least tr H; it notes the mean over the probes as it was, and its standard
    error.
    """

    teacher = "none"
    differentiates_input = True
    ran: Tensor

    def __init__(self, form: Form, probes: int) -> None:
        super().__init__()
        self.form, self.probes = form, probes
        self.reads_labels = form != "closed_form"  # an estimate is of the Hessian with these labels, the closed form of any
        # A buffer, because a job that is resumed after the fit of this term does not come here again.
        self.register_buffer("ran", torch.tensor(0))

    def passes(self, batch: int, classes: int) -> Passes:
        """Two for each class, whose derivatives the closed form takes of every layer, or fourteen for each probe of an estimate, as
        `benchmarks/results/trace.json` has them."""
        if self.form == "hutchinson":
            return Passes(student=14 * self.probes, student_kept=3)
        return Passes(student=2 * classes, student_kept=classes)

    def forward(self, scene: Scene) -> Tensor:
        found = trace(scene, self.form, self.probes)
        self.ran.fill_(_FORMS.index(found.form))
        if found.error is not None:
            scene.note("trace.estimate", found.value)
            scene.note("trace.error", found.error)
        return found.value.clamp_min(0)

    def facts(self) -> Mapping[str, Any]:
        """Which form ran."""
        return {"form": _FORMS[int(self.ran)]} if self.ran else {}


_FORMS: tuple[Form, ...] = ("auto", "closed_form", "hutchinson")


def trace(scene: Scene, form: Form, probes: int) -> Trace:
    """tr H of the batch's mean cross-entropy by all parameters of the student that learn, in eval mode, absent classes masked.

    "auto" is the closed form, or, where it does not hold, Hutchinson's estimate from at least two `probes` drawn by the scene's key and
    first sample. Of a smooth network the trace may be negative. Raises `Refused` where the closed form was asked for and does not hold.
    """
    if form != "hutchinson":
        try:
            return Trace(closed_form(scene.student, scene.x, scene.classes), None, "closed_form")
        except NotAffine as why:
            if form == "closed_form":
                reason = f"the closed form of the trace was asked for, and {why}"
                raise Refused("/methods", reason, hint='"trace": "auto" takes an estimate then') from why
    parameters = _learning(scene.student)
    with scene.student.quiet():
        loss = CrossEntropy()(replace(scene, s=scene.student(scene.x)))
    n = sum(parameter.numel() for parameter in parameters)
    found = hutchinson(loss, parameters, (signs(scene.key, scene.index[:1], n, stream)[0] for stream in range(probes)))
    return Trace(found.mean(), found.detach().std() / probes**0.5, "hutchinson")


def hutchinson(loss: Tensor, parameters: Sequence[Tensor], probes: Iterable[Tensor]) -> Tensor:
    """(K,), with a gradient: v^T H v for each probe v, which is as long as all parameters together. Its mean over random signs is tr H,
    its variance 2 (|H|_F^2 - sum_i H_ii^2) (Hutchinson 1990).
    """
    slopes = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
    found = []
    for probe in probes:
        parts = [part.view_as(slope) for part, slope in zip(torch.split(probe, [slope.numel() for slope in slopes]), slopes, strict=True)]
        products = torch.autograd.grad(_inner(slopes, parts), parameters, create_graph=True, materialize_grads=True)
        found.append(_inner(products, parts))
    return torch.stack(found)


def closed_form(network: Tapped, x: Tensor, classes: Tensor | None = None) -> Tensor:
    """tr H exactly, a scalar with a gradient, for a batch x (N, ...) in eval mode. Raises `NotAffine`.

    Memory: for each layer the derivatives by what it gives, one for each of the classes that the data has.
    """
    record = _Layers(x, _learning(network))
    try:
        with network.quiet(), record:
            logits = network(x).logits
    except Nonlinear as unknown:
        raise NotAffine(f"the network calls {unknown.function!r}, of which it is not known that it is linear in pieces") from unknown
    layers = record.layers
    p = log_softmax(logits, classes=classes).exp()
    present = torch.arange(p.shape[1], device=p.device) if classes is None else classes.nonzero()[:, 0]
    # The derivative of -log p_c by the logits is p - onehot(c).
    errors = p[None] - F.one_hot(present, p.shape[1])[:, None].to(p.dtype)
    outs = [layer.out for layer in layers]
    derivatives = torch.autograd.grad(logits, outs, errors, is_grads_batched=True, create_graph=True, allow_unused=True)
    reached = [(layer, derivative) for layer, derivative in zip(layers, derivatives, strict=True) if derivative is not None]
    return torch.stack([layer.squares(derivative, p[:, present]) for layer, derivative in reached]).sum() / len(x)


Squares = Callable[[Tensor, Tensor], Tensor]
"""From the derivatives by what a layer gave (C, N, ...) and how much each class counts (N, C) to the squared lengths of the gradients by
its weights, counted so and summed over both.
"""


class _Layer(NamedTuple):
    """A layer as it was called."""

    out: Tensor
    squares: Squares


class _Layers(Record):
    """Records a pass, and in it the layers that have weights; `NotAffine` where a weight is used in another way, or twice."""

    def __init__(self, x: Tensor, learning: Iterable[Tensor]) -> None:
        super().__init__(x)
        self.n, self.learning, self.layers = len(x), {id(weight) for weight in learning}, list[_Layer]()
        self.used = set[int]()

    def __torch_function__(self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        out = super().__torch_function__(function, types, args, kwargs)
        name, named = function.__name__, kwargs or {}
        weights = {id(tensor) for tensor in tensors((args, named))} & self.learning
        if not weights or next(tensors(out), None) is None:
            return out
        maker = _MAKERS.get(name)
        if maker is None or id(args[0]) not in self.moving or len(args[0]) != self.n:
            raise NotAffine(f"a weight of the network enters {name!r} in a way that is not known here")
        if weights & self.used:
            raise NotAffine(f"a weight of the network is used twice, the second time in {name!r}")
        self.used |= weights
        self.layers.append(_Layer(out, maker(*args, **named)))
        return out


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Squares:
    def at_one_place(derivative: Tensor, counts: Tensor) -> Tensor:
        # |leaving entering^T|^2 is the product of both squares, and the bias is a weight behind a constant 1.
        leaving = (derivative.square().sum(2).t() * counts).sum(1)
        entering = x.square().sum(1) if weight.requires_grad else x.new_zeros(len(x))
        return (leaving * (entering + 1 if bias is not None and bias.requires_grad else entering)).sum()

    def at_many(derivative: Tensor, counts: Tensor) -> Tensor:
        leaving = derivative.flatten(2, -2).permute(1, 2, 0, 3)
        return _products(x.flatten(1, -2), leaving, counts, weight) + _bias(leaving, counts, bias)

    return at_one_place if x.ndim == 2 else at_many


def _conv2d(  # noqa: PLR0917 -- as torch calls it
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Squares:
    if isinstance(padding, str):
        raise NotAffine(f"a convolution is padded by the word {padding!r}")
    patches = F.unfold(x, weight.shape[2:], dilation, padding, stride)
    # Each group is a convolution of its own, and a sample of its own here.
    entering = patches.view(len(x) * groups, -1, patches.shape[2]).transpose(1, 2)

    def squares(derivative: Tensor, counts: Tensor) -> Tensor:
        grouped = derivative.view(len(derivative), entering.shape[0], -1, entering.shape[1])
        leaving, counts = grouped.permute(1, 3, 0, 2), counts.repeat_interleave(groups, 0)
        return _products(entering, leaving, counts, weight) + _bias(leaving, counts, bias)

    return squares


def _batch_norm(  # noqa: PLR0917 -- as torch calls it
    x: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None = None, bias: Tensor | None = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Squares:  # fmt: skip
    scaled = F.batch_norm(x, mean, var, None, None, False, 0.0, eps)

    def squares(derivative: Tensor, counts: Tensor) -> Tensor:
        total = counts.new_zeros(())
        for parameter, slopes in ((weight, derivative * scaled), (bias, derivative)):
            if parameter is not None and parameter.requires_grad:
                lengths = slopes.flatten(3).sum(3).square().sum(2) if slopes.ndim > 3 else slopes.square().sum(2)
                total = total + (lengths.t() * counts).sum()
        return total

    return squares


def _products(entering: Tensor, leaving: Tensor, counts: Tensor, weight: Tensor) -> Tensor:
    """The sum over samples n and classes c of counts_nc |sum_l leaving_nlc entering_nl^T|^2, with places l: entering (N, L, K), leaving
    (N, L, C, R).
    """
    if not weight.requires_grad:
        return counts.new_zeros(())
    _, places, k = entering.shape
    weighted, rows = (leaving * counts[:, None, :, None]).flatten(2), leaving.flatten(2)
    if places * (k + rows.shape[2]) <= k * rows.shape[2]:
        # |A B|^2 = tr (A^T A)(B B^T): products of places, and no gradient is ever made.
        return ((entering @ entering.mT) * (weighted @ rows.mT)).sum()
    return ((weighted.mT @ entering) * (rows.mT @ entering)).sum()


def _bias(leaving: Tensor, counts: Tensor, bias: Tensor | None) -> Tensor:
    if bias is None or not bias.requires_grad:
        return counts.new_zeros(())
    return (leaving.sum(1).square().sum(2) * counts).sum()


_MAKERS: dict[str, Callable[..., Squares]] = {"batch_norm": _batch_norm, "conv2d": _conv2d, "linear": _linear}


def _learning(network: Tapped) -> list[Tensor]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def _inner(these: Iterable[Tensor], those: Iterable[Tensor]) -> Tensor:
    return torch.stack([(one * other).sum() for one, other in zip(these, those, strict=True)]).sum()
