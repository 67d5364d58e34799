"""Knowledge distillation: the student learns the teacher's softened answers beside the labels.

A trained teacher is not only right or wrong: among the wrong classes it finds some far likelier than others. A
temperature T above 1 raises these small probabilities until they count. With logits z_s, z_t of shape (B, C), q =
softmax(z_s / T) and p = softmax(z_t / T):

    L = T^2 * (1/B) * sum_b sum_c p_bc (log p_bc - log q_bc)

the sum over classes, the mean over the batch. T^2 keeps the size of the gradient when T changes; as T grows, L tends to
the mean over the batch of |centred(z_s - z_t)|^2 / 2C. Where student and teacher agree, L and its gradient are 0.
Adding a constant to all logits changes nothing.

Use it first: it needs only logits and equal classes, and adds to every other method. The common setting on CIFAR-100 is
T = 4 and weight 0.9, with a task weight of 0.1.

Cost: one forward pass of the teacher for each batch, and no parameters of its own.

Two classes, T = 2, student (0, 0), teacher (2, 0):

>>> import torch
>>> from core.terms import divergence
>>> student, teacher = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([[2.0, 0.0]], dtype=torch.float64)
>>> round(2.0**2 * divergence(student, teacher, temperature=2.0).item(), 10)
0.4437762867

Reference: G. Hinton, O. Vinyals, J. Dean, Distilling the Knowledge in a Neural Network, arXiv 1503.02531, 2015.
"""

from typing import ClassVar, Literal

from pydantic import Field

from core.anatomy import Anatomy
from core.method import Lesson, Method, Weight, Weighted
from core.terms import SoftTargets


class KD(Method):
    """Match the teacher's softened class probabilities."""

    reference: ClassVar[str] = "Hinton, Vinyals & Dean, Distilling the Knowledge in a Neural Network, arXiv 1503.02531, 2015"
    answers_suffice = True

    name: Literal["kd"] = "kd"
    temperature: float = Field(4.0, ge=0.1, le=1000, description="T: what both networks' logits are divided by before the softmax.")
    weight: Weight = Field(0.9, description="The weight of L. The weight of the labels is the recipe's `task_weight`.")
    variant: Literal["official", "corrected"] = Field(
        "corrected",
        description=(
            "`corrected` is the formula, with T^2. `official` leaves T^2 out, as the code published with AB and BSS does (at T = 3): "
            "the gradient then falls as 1/T^2, and a weight tuned for it means something else."
        ),
    )

    def lesson(self, teacher: Anatomy | None, student: Anatomy) -> Lesson:
        """One term, `kd`, on the logits."""
        return Lesson(train={"kd": Weighted(SoftTargets(self.temperature, scaled=self.variant == "corrected"), self.weight)})
