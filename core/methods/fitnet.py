"""FitNet: a layer of the student learns to give what a layer of the teacher gives, before the student is trained.

The teacher's hint h of shape (B, C_t, H_t, W_t) and the student's guided map g of shape (B, C_s, H_s, W_s) are compared
behind a regressor r: one convolution from C_s to C_t channels whose kernel, (H_s - H_t + 1) x (W_s - W_t + 1), makes the
sizes meet without padding, and the nonlinearity of the hint layer. At equal sizes that is a 1x1 convolution.

    L = 1/2 * mean over b, c, h, w of (h - r(g))^2

Times C_t * H_t * W_t it is the paper's half of a squared norm; the mean makes a weight mean the same for every layer. In
two stages L alone trains the student up to the guided layer, then comes the training; `joint` adds L to the training
instead. What lies above the guided layer does not move in the first stage, batch statistics included. By default the
hint is what the activation behind the middle stage gives, the second of two.

Use it, followed by `kd`, for a student deeper than can be trained well from scratch, or as the plainest way to hand over
features: it compares no logits, so the teacher may know other classes. A hint near the output binds the student more. A
hint taken before its activation (`:in`) has negative values, which the regressor reaches only with the `activation` none.

Cost: one convolution; 1x1 at equal sizes, but as large as the difference of the sizes asks for otherwise. It keeps the
teacher's map whole.

A hint of zeros and a constant answer 3: half of 9.

>>> import torch
>>> hint_loss(torch.full((2, 4, 5, 5), 3.0), torch.zeros(2, 4, 5, 5)).item()
4.5

Reference: A. Romero, N. Ballas, S. E. Kahou, A. Chassang, C. Gatta, Y. Bengio, FitNets: Hints for Thin Deep Nets, ICLR
2015, equation 3; code adri-romsor/FitNets.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from core.anatomy import Anatomy, Joint, join, match
from core.errors import Refused
from core.method import Fit, Lesson, Method, Scene, Term, Weighted
from core.optim import Constant, Recipe, Weight
from core.taps import Pair


def hint_loss(answer: Tensor, hint: Tensor, *, rows: bool = False) -> Tensor:
    """Half the mean squared difference of (B, ...); with `rows` the sum over the rows of maps, or over vectors, instead of their mean."""
    loss = 0.5 * (answer - hint).square().mean()
    return loss * hint.shape[min(2, hint.ndim - 1)] if rows else loss


class Fitnet(Method):
    """Regress a teacher's map from a student's map."""

    reference: ClassVar[str] = "Romero, Ballas, Kahou, Chassang, Gatta & Bengio, FitNets: Hints for Thin Deep Nets, ICLR 2015"
    examples = ({"epochs": 10}, {"joint": True}, {"variant": "official", "activation": "none"})
    pairs_by = "pre"

    name: Literal["fitnet"] = "fitnet"
    epochs: int = Field(20, ge=1, le=100_000, description="Epochs of the first stage, before those of the recipe; not used when `joint`.")
    lr: float | None = Field(
        None, gt=0, le=100, description="The first stage's learning rate, constant; the recipe's optimiser and its rate when left out."
    )
    pairs: tuple[Pair, ...] = Field(
        (), max_length=64, description="[hint tap, guided tap]; what the activation behind the middle stage gives when left out."
    )
    weight: Weight = Field(20.0, description="The weight of L; our choice. RepDistiller's joint form has 200 in these units.")
    joint: bool = Field(False, description="Add L to the training instead of a stage of its own.")
    activation: Literal["relu", "none"] = Field(
        "relu",
        description="What follows the regressor's convolution: the hint layer's own nonlinearity; `none` for a hint with negative values.",
    )
    variant: Literal["official", "corrected"] = Field(
        "corrected",
        description=(
            "`corrected` is L above. `official` sums over the rows of a map before the mean, as the published code does by the place of "
            "an axis (L is then H_t times larger), draws the regressor from U(-0.05, 0.05) with no bias, and has none between maps of one "
            "shape. Its bound on the kernels' norm and its choice of the best epoch on validation are left out."
        ),
    )

    def lesson(self, teacher: Anatomy | None, student: Anatomy) -> Lesson:
        """One transfer fit with one term, `fitnet`, or that term in the training."""
        joints = join(self.pairs or _middle(teacher, student), teacher, student, "pre", maps=False, same_size=False)
        terms = {"fitnet": Weighted(Hint(joints, relu=self.activation == "relu", official=self.variant == "official"), self.weight)}
        if self.joint:
            return Lesson(train=terms)
        return Lesson(transfer=(Fit(terms, Recipe(epochs=self.epochs, schedule=Constant()), lr=self.lr),))


def _middle(teacher: Anatomy | None, student: Anatomy) -> tuple[Pair, ...]:
    """The pair behind the middle stage, on the far side of its activations."""
    assert teacher is not None, "plan refuses a method that needs a teacher where there is none"
    pairs = match(teacher, student, "pre", where="/pairs")
    return (Pair(*(tap.removesuffix(":in") for tap in pairs[len(pairs) // 2])),)


class Hint(Term):
    """The distance of each hint from the regressor's answer, summed over the pairs."""

    def __init__(self, joints: Sequence[Joint], *, relu: bool, official: bool) -> None:
        super().__init__()
        self.teacher_taps = tuple(joint.pair.teacher for joint in joints)
        self.student_taps = tuple(joint.pair.student for joint in joints)
        self.regressors = nn.ModuleList(_regressor(k, joint, relu=relu, official=official) for k, joint in enumerate(joints))
        self.rows = official
        # A regressor has weights of its own, so that two equal networks differ at first.
        self.optimum = 0.0 if all(isinstance(regressor, nn.Identity) for regressor in self.regressors) else None

    def forward(self, scene: Scene) -> Tensor:
        assert scene.t is not None
        ends = zip(self.regressors, self.student_taps, self.teacher_taps, strict=True)
        return torch.stack([hint_loss(r(scene.s.at[s]), scene.t.at[t], rows=self.rows) for r, s, t in ends]).sum()


def _regressor(k: int, joint: Joint, *, relu: bool, official: bool) -> nn.Module:
    hint, guided = joint.teacher, joint.student
    if official and hint == guided:
        return nn.Identity()
    if len(hint) != len(guided) or any(g < h for g, h in zip(guided[1:], hint[1:], strict=True)):
        reason = f"no convolution without padding makes the hint's {hint} of the guided map's {guided}"
        raise Refused(f"/pairs/{k}", reason, hint="a guided tap at least as high and wide as the hint; GET /v1/pairs suggests pairs")
    if len(hint) == 3:
        kernel = (guided[1] - hint[1] + 1, guided[2] - hint[2] + 1)
        linear: nn.Conv2d | nn.Linear = nn.Conv2d(guided[0], hint[0], kernel)
    else:
        linear = nn.Linear(guided[0], hint[0])
    if official:
        nn.init.uniform_(linear.weight, -0.05, 0.05)
        assert linear.bias is not None
        nn.init.zeros_(linear.bias)
    return nn.Sequential(linear, nn.ReLU()) if relu else linear
