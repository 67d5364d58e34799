"""Terms that several methods need: cross-entropy with the labels, and the softened targets of a teacher."""

import torch
from torch import Tensor
from torch.nn import functional as F

from core.method import Scene, Term


def log_softmax(logits: Tensor, temperature: float = 1.0, classes: Tensor | None = None) -> Tensor:
    """(B, C) log-probabilities in fp32 (or fp64); classes that the data does not have get -inf."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
    if classes is not None:
        logits = logits.masked_fill(~classes, -torch.inf)
    return F.log_softmax(logits, dim=1)


class CrossEntropy(Term):
    """-sum_c q_c log p_c, mean over the batch, with q = (1 - e) onehot(y) + e / K over the K classes that the data has.

    Absent classes are masked with -inf before the softmax: they take no probability and get no gradient.
    """

    teacher = "none"
    reads_labels = True

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, scene: Scene) -> Tensor:
        logp = log_softmax(scene.s.logits, classes=scene.classes)
        hard = -logp.gather(1, scene.y[:, None])[:, 0].mean()
        if not self.label_smoothing:
            return hard
        if scene.classes is not None:
            logp = logp.masked_fill(~scene.classes, 0.0)
            even = -(logp.sum(1) / scene.classes.sum()).mean()
        else:
            even = -logp.mean()
        return (1 - self.label_smoothing) * hard + self.label_smoothing * even


def divergence(student: Tensor, teacher: Tensor, temperature: float, classes: Tensor | None = None) -> Tensor:
    """KL(p || q) of p = softmax(teacher / T) and q = softmax(student / T), both logits (B, C): sum over classes, mean
    over the batch, no T^2.
    """
    logq, logp = log_softmax(student, temperature, classes), log_softmax(teacher, temperature, classes)
    if classes is None:
        return (logp.exp() * (logp - logq)).sum(1).mean()
    # Where a class is absent both are -inf, and 0 * (-inf - -inf) is not a number.
    gap = logp.masked_fill(~classes, 0.0) - logq.masked_fill(~classes, 0.0)
    return (logp.exp() * gap).sum(1).mean()


class SoftTargets(Term):
    """The divergence of the student's softened answers from the teacher's, times T^2 unless not `scaled`; the gradient
    then falls as 1/T^2.
    """

    optimum = 0.0

    def __init__(self, temperature: float, *, scaled: bool = True) -> None:
        super().__init__()
        self.temperature = temperature
        self.scale = temperature**2 if scaled else 1.0

    def forward(self, scene: Scene) -> Tensor:
        assert scene.t is not None
        return self.scale * divergence(scene.s.logits, scene.t.logits, self.temperature, scene.classes)
