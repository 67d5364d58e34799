"""How far an export may lie from the trained student: one rule a kind of arithmetic, with the reason for each."""

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """`difference` bounds the largest difference of two logits, relative to the largest logit (at least 1); `agreement` is the least
    share of inputs with the same top-1 class, and `loss` the most accuracy that may be lost; None: not looked at.

    Shares are of the inputs compared, and one input alone decides nothing: on few of them it would be more than the share.
    """

    difference: float | None = None
    agreement: float | None = None
    loss: float | None = None
    reason: str

    def disagreement(self, found: Mapping[str, float]) -> str | None:
        """Why an export that was measured is not to be offered, with the numbers; None where it may be.

        `found` has "finite", "max_abs_diff", "largest_logit", "compared", "same" (inputs with the same top-1 class) and, on labelled
        data, "labelled", "hits" and "student_hits".
        """
        n = int(found["compared"])
        if not found["finite"]:
            return f"it gives values that are not finite on some of {n} test inputs"
        if self.difference is not None:
            allowed = self.difference * max(1.0, found["largest_logit"])
            if not found["max_abs_diff"] <= allowed:
                return f"its logits differ from the student's by {found['max_abs_diff']:.3g} on {n} test inputs; {allowed:.3g} is allowed"
        if self.agreement is not None:
            apart = n - int(found["same"])
            if apart > max(1, math.floor((1 - self.agreement) * n)):
                return f"it gives another class than the student on {apart} of {n} test inputs; {1 - self.agreement:.0%} are allowed"
        if self.loss is not None and found.get("labelled"):
            labelled, lost = int(found["labelled"]), int(found["student_hits"] - found["hits"])
            if lost > max(1, math.floor(self.loss * labelled)):
                return f"it is right on {lost} test inputs fewer than the student of {labelled}; {self.loss:.0%} are allowed"
        return None


EXACT = Tolerance(
    difference=1e-4,
    reason="the same arithmetic in float32: another order of the sums moves a logit by some 1e-6 of the largest, an error by far more",
)
"""Where no class changes hands but between classes that lie closer than twice the difference."""

HALF = Tolerance(
    agreement=0.99,
    reason="float16 has 11 bits: a logit moves by about a thousandth, which decides only inputs that two classes nearly share",
)

EIGHT_BITS = Tolerance(
    agreement=0.95,
    loss=0.02,
    reason="8 bits move logits by some percent: small students change their mind on a few inputs, and about as often for the better",
)
