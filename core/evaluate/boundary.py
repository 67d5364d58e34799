"""How alike the decision boundaries of two networks are: MagSim, AngSim, and the distance to the boundary, by a converged attack.

The names are those of Heo et al., Knowledge Distillation with Adversarial Samples Supporting Decision Boundary, AAAI 2019. Their definition
is not known to us, so what is measured here is our reconstruction. For a base sample x of label b that both networks classify right, and
another class k, let d_t and d_s be the shortest shifts found that take x to f_b = f_k in the teacher and in the student:

    MagSim = mean of min(|d_t|, |d_s|) / max(|d_t|, |d_s|)
    AngSim = mean of <d_t, d_s> / (|d_t| |d_s|)

over the pairs (x, k) for which both attacks reached the boundary; Euclidean lengths, in data units. Both are 1 for identical networks.
"""

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from core.data.rows import Rows
from core.evaluate.measure import Measure
from core.random import key_of, rival, uniforms
from core.taps import Tapped

_TOGETHER = 64
"""So many samples are attacked together: a gradient takes far more memory than an answer."""
_TOLERANCE = 1e-4
"""How near the boundary is near enough: |f_b - f_k| there, as a part of what it is at the base sample."""
_HALVINGS = 24
"""The most that a crossing is bisected: what then is left of the segment is the rounding of single precision."""


class Boundary(Measure):
    """MagSim, AngSim and the distance to the decision boundary, of student and teacher; our reconstruction of the definition.

    The base samples are the first `samples` of the test split, in an order drawn from the job's seed, that both networks classify right;
    the class k of each is drawn from the teacher's probabilities without its top class. The shortest shift is looked for by the iteration
    of Hasofer & Lind (1974) and Rackwitz & Fiessler (1978) for the nearest point of a limit state: with L = f_b - f_k and its gradient g at
    the last point z, the next one is

        x + (<g, z - x> - L(z)) / |g|^2 * g

    which is exact after one step where L is linear. A network of ReLUs is linear in pieces, where the plain iteration turns about the
    nearest point and ends short of the boundary. So the n-th step goes 1 / sqrt(n) of its way, and where it ends short of the boundary
    twice its shift is tried. Where a step crosses the boundary, the crossing is bisected until |L| is below 1e-4 of its value at x. The
    shortest of all crossings counts, so a distance is an upper bound of the least one. Another class may lie higher at that point: it is
    the boundary of b and k that is measured.

    The shifts are not clipped to the range of the data: the boundary is the network's own, clipped shifts would have the direction of the
    range's faces, and many boundaries would not be reached at all.
    """

    name: Literal["boundary"] = "boundary"
    samples: int = Field(256, ge=1, le=100_000, description="How many base samples are tried, at most.")
    iterations: int = Field(20, ge=1, le=1000, description="How many steps an attack takes.")

    def values(
        self, student: Tapped, teacher: Tapped, rows: Rows, device: torch.device | str = "cpu", *, seed: int
    ) -> Generator[None, None, dict[str, float]]:
        """Yields None a batch of samples and a step of an attack; returns "boundary_tried" and "boundary_pairs", the numbers of base
        samples that were attacked and of those for which both attacks reached the boundary, and where there are such pairs their means:
        "magsim" in [0, 1], "angsim" in [-1, 1], and in data units "boundary_distance" of the student and "teacher.boundary_distance".
        """
        tried, found = 0, [torch.empty(4, 0, dtype=torch.float64)]
        draws = uniforms(key_of(seed, "boundary", "order"), torch.from_numpy(rows.index))[:, 0]
        ordered = rows.only(rows.position[torch.argsort(draws, stable=True).numpy()])
        for batch in ordered.batches(min(_TOGETHER, rows.together), device):
            with torch.no_grad(), student.quiet(), teacher.quiet():
                answers = rows.answers(teacher(batch.x).logits)
                right = (answers.argmax(1) == batch.y) & (rows.answers(student(batch.x).logits).argmax(1) == batch.y)
            base = right.nonzero()[: self.samples - tried, 0]
            x, b = batch.x[base], batch.y[base]
            k = rival(answers[base], uniforms(key_of(seed, "boundary", "class"), batch.index[base])[:, 0])
            yield
            if len(base):
                ours, reached = yield from _nearest(_Edge(student, x, b, k), self.iterations)
                theirs, reached_too = yield from _nearest(_Edge(teacher, x, b, k), self.iterations)
                both = reached & reached_too
                found.append(_compared(ours[both], theirs[both]).cpu())
            tried += len(base)
            if tried == self.samples:
                break
        pairs = torch.cat(found, 1)
        names = ("magsim", "angsim", "boundary_distance", "teacher.boundary_distance")
        means = dict(zip(names, pairs.mean(1).tolist(), strict=True)) if pairs.shape[1] else {}
        return {**means, "boundary_pairs": pairs.shape[1], "boundary_tried": tried}


def _compared(ours: Tensor, theirs: Tensor) -> Tensor:
    """(4, B): ratio of lengths, cosine, and both lengths, of shifts (B, D) that are not zero."""
    squares = [(d * d).sum(1) for d in (ours, theirs)]
    lengths = [square.sqrt() for square in squares]
    ratio = torch.minimum(*lengths) / torch.maximum(*lengths)
    # One root of the product and not two: the root of a square is exact, so identical shifts have the cosine 1 and nothing less.
    cosine = ((ours * theirs).sum(1) / (squares[0] * squares[1]).sqrt()).clamp(-1, 1)
    return torch.stack([ratio, cosine, *lengths])


@dataclass(frozen=True, slots=True)
class _Edge:
    """Where a network is in two minds about samples x (B, ...): f_b = f_k. Shifts (B, D) are in double precision."""

    network: Tapped
    x: Tensor
    b: Tensor
    k: Tensor

    def only(self, rows: Tensor) -> "_Edge":
        return _Edge(self.network, self.x[rows], self.b[rows], self.k[rows])

    def margin(self, shift: Tensor) -> Tensor:
        """f_b - f_k (B,) at the shifted samples."""
        with torch.no_grad(), self.network.quiet():
            return self._difference(self._moved(shift))

    def slope(self, shift: Tensor) -> tuple[Tensor, Tensor]:
        """f_b - f_k (B,) at the shifted samples, and its gradient (B, D)."""
        leaf = self._moved(shift).requires_grad_()
        with torch.enable_grad(), self.network.quiet():
            difference = self._difference(leaf)
            # The samples do not meet in eval mode, so the gradient of the sum holds each one's own.
            (slope,) = torch.autograd.grad(difference.sum(), leaf)
        return difference.detach(), slope.flatten(1).double()

    def _moved(self, shift: Tensor) -> Tensor:
        return (self.x.double() + shift.reshape(self.x.shape)).to(self.x)

    def _difference(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x).logits.double()
        return (logits.gather(1, self.b[:, None]) - logits.gather(1, self.k[:, None]))[:, 0]


def _nearest(edge: _Edge, iterations: int) -> Generator[None, None, tuple[Tensor, Tensor]]:
    """The shortest shift (B, D) found that takes each sample to the edge, and (B,) whether one was found."""
    shift = torch.zeros_like(edge.x, dtype=torch.float64).flatten(1)
    tolerance = _TOLERANCE * edge.margin(shift)
    best, shortest = shift, torch.full_like(tolerance, torch.inf)
    for step in range(1, iterations + 1):
        margin, slope = edge.slope(shift)
        square = (slope * slope).sum(1)
        # A slope of zero leads nowhere: such a sample turns back towards where it was.
        part = torch.where(square > 0, ((slope * shift).sum(1) - margin) / square, 0.0)
        shift = shift + (part[:, None] * slope - shift) / math.sqrt(step)
        margin = edge.margin(shift)
        short = (margin > tolerance).nonzero()[:, 0]
        if len(short):
            further = edge.only(short).margin(2 * shift[short])
            crosses = further <= tolerance[short]
            shift[short[crosses]] *= 2
            margin[short[crosses]] = further[crosses]
        beyond = (margin < -tolerance).nonzero()[:, 0]
        if len(beyond):
            shift[beyond] *= _crossing(edge.only(beyond), shift[beyond], tolerance[beyond])[:, None]
        length = shift.square().sum(1).sqrt()
        better = (margin <= tolerance) & (length < shortest)
        best, shortest = torch.where(better[:, None], shift, best), torch.where(better, length, shortest)
        yield
    return best, shortest.isfinite() & (shortest > 0)


def _crossing(edge: _Edge, shift: Tensor, tolerance: Tensor) -> Tensor:
    """(B,): at which part of each shift, which leads beyond the edge, the edge lies; by bisection."""
    near, far = torch.zeros_like(tolerance), torch.ones_like(tolerance)
    for _ in range(_HALVINGS):
        middle = (near + far) / 2
        margin = edge.margin(middle[:, None] * shift)
        near = torch.where(margin >= -tolerance, middle, near)
        far = torch.where(margin <= tolerance, middle, far)
        if bool((near == far).all()):
            break
    return far
