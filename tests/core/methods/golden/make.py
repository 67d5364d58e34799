"""Golden losses and gradients in NumPy alone, float64, straight from the formulas: `python make.py` writes losses.json beside itself.

Nothing here knows torch or the engine. Gradients are the formulas' own where they are short, and five-point differences of the loss
elsewhere; every input is a seeded draw, and none lies within a difference's reach of a kink.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FILE = Path(__file__).with_name("losses.json")
STEP = 1e-4
"""Of a difference: its own error is about STEP^4, that of rounding about 1e-16 / STEP."""


def draw(name: str, *shape: int) -> Array:
    """Normal numbers that depend on the name alone."""
    return np.random.default_rng(list(name.encode())).normal(size=shape)


def differences(loss: Callable[[Array], float], at: Array) -> Array:
    """The gradient of a loss by five-point central differences, entry by entry."""
    gradient = np.zeros_like(at)
    for place in np.ndindex(*at.shape):

        def along(steps: int, place: tuple[int, ...] = place) -> float:
            shifted = at.copy()
            shifted[place] += steps * STEP
            return loss(shifted)

        gradient[place] = (along(-2) - 8 * along(-1) + 8 * along(1) - along(2)) / (12 * STEP)
    return gradient


def softmax(z: Array) -> Array:
    """Along the last axis."""
    e = np.exp(z - z.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


def kd(student: Array, teacher: Array, temperature: float) -> tuple[float, dict[str, Array]]:
    """Hinton 2015: T^2 KL(p || q), sum over classes, mean over the batch. The gradient is T (q - p) / B."""
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    loss = temperature**2 * (p * np.log(p / q)).sum() / len(p)
    return float(loss), {"student": temperature * (q - p) / len(p)}


def fitnet(guided: Array, hint: Array, weight: Array, bias: Array, *, rows: bool) -> tuple[float, dict[str, Array]]:
    """Romero 2015, with a regressor of one unpadded convolution and a ReLU: half the mean squared difference, or, with `rows`, half the sum
    over the rows (axis 2) of the mean over everything else.
    """
    high, wide = hint.shape[2:]
    windows = np.lib.stride_tricks.sliding_window_view(guided, weight.shape[2:], axis=(2, 3))
    assert windows.shape[2:4] == (high, wide)
    before = np.einsum("bchwij,ocij->bohw", windows, weight) + bias[:, None, None]
    gap = np.maximum(before, 0) - hint
    count = gap.size / (high if rows else 1)
    down = np.where(before > 0, gap, 0) / count
    gradient = np.zeros_like(guided)
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            gradient[:, :, i : i + high, j : j + wide] += np.einsum("bohw,oc->bchw", down, weight[:, :, i, j])
    return float(0.5 * (gap**2).sum() / count), {"student": gradient}


def attention(features: Array) -> Array:
    """Zagoruyko 2017: (B, H * W), the energy over the channels, of length 1."""
    energy = (features**2).sum(1).reshape(len(features), -1)
    return np.asarray(energy / np.sqrt((energy**2).sum(1, keepdims=True)))


def at(student: Array, teacher: Array) -> tuple[float, dict[str, Array]]:
    """Zagoruyko 2017: the mean over batch and places of the squared difference of the attention maps."""

    def loss(features: Array) -> float:
        return float(((attention(features) - attention(teacher)) ** 2).mean())

    return loss(student), {"student": differences(loss, student)}


def pooled(features: Array, to: int) -> Array:
    """(B, C, to, to): the maximum of each square."""
    n, c, h, w = features.shape
    return np.asarray(features.reshape(n, c, to, h // to, to, w // to).max((3, 5)))


def flow(first: Array, second: Array) -> Array:
    """Yim 2017: (B, m, n), the mean over the places of the products of the channels, the larger map pooled to the smaller."""
    size = min(first.shape[2], second.shape[2])
    first, second = pooled(first, size), pooled(second, size)
    return np.asarray(np.einsum("bmhw,bnhw->bmn", first, second) / size**2)


def fsp(student: tuple[Array, Array], teacher: tuple[Array, Array]) -> tuple[float, dict[str, Array]]:
    """Yim 2017: the squared distance of the flows, sum over their entries, mean over the batch."""

    def loss(first: Array, second: Array) -> float:
        return float(((flow(*teacher) - flow(first, second)) ** 2).sum() / len(first))

    first, second = student
    return loss(first, second), {
        "first": differences(lambda shifted: loss(shifted, second), first),
        "second": differences(lambda shifted: loss(first, shifted), second),
    }


def ab(student: Array, teacher: Array, margin: float) -> tuple[float, dict[str, Array]]:
    """Heo 2019: the squared hinge, sum over elements, mean over the batch. The gradient is -2 hinge / B where active, else 2 hinge / B."""
    active = (teacher > 0).astype(np.float64)
    low, high = np.maximum(margin - student, 0), np.maximum(margin + student, 0)
    loss = ((active * low + (1 - active) * high) ** 2).sum() / len(student)
    return float(loss), {"student": 2 * ((1 - active) * high - active * low) / len(student)}


def slope(x: Array, y: NDArray[np.int64], w1: Array, b1: Array, w2: Array) -> tuple[Array, Array]:
    """(B, D), the input gradient of logit y of w2 relu(w1 x + b1), and (B, H), which hidden units are active."""
    mask = (x @ w1.T + b1 > 0).astype(np.float64)
    return (w2[y] * mask) @ w1, mask


def jacobian(
    x: Array, y: NDArray[np.int64], student: tuple[Array, Array, Array], teacher: tuple[Array, Array, Array]
) -> tuple[float, dict[str, Array]]:
    """Srinivas 2018: the squared distance of the gradients of length 1, mean over the batch; of networks with one hidden layer, where the
    gradient is w2[y] diag(active) w1 and its own derivative follows by the product rule.
    """
    w1, _, w2 = student
    ours, mask = slope(x, y, *student)
    theirs, _ = slope(x, y, *teacher)
    length = np.linalg.norm(ours, axis=1, keepdims=True)
    u, v = ours / length, theirs / np.linalg.norm(theirs, axis=1, keepdims=True)
    # L = mean 2 - 2 u.v, and u moves at right angles to itself.
    down = -2 * (v - (u * v).sum(1, keepdims=True) * u) / length / len(x)
    of_w1 = np.einsum("bh,bd->hd", w2[y] * mask, down)
    of_w2 = np.zeros_like(w2)
    np.add.at(of_w2, y, mask * (down @ w1.T))
    return float(((u - v) ** 2).sum(1).mean()), {"w1": of_w1, "w2": of_w2}


def answers(x: Array, w1: Array, b1: Array, w2: Array) -> Array:
    """(B, C): the logits w2 relu(w1 x + b1)."""
    return np.maximum(x @ w1.T + b1, 0) @ w2.T


def bss(
    x: Array, student: tuple[Array, Array, Array], teacher: tuple[Array, Array, Array], temperature: float, *, std: float, official: bool
) -> tuple[float, dict[str, Array]]:
    """Heo 2019: KL(p || q) at the boundary samples, mean over these, of two classes (so that the target is no matter of chance), where the
    label is the teacher's answer. `std` is the deviation of data with mean 0, which the official step and clip are made of.
    """
    found = []
    for sample in x:
        base = int(answers(sample[None], *teacher)[0].argmax())
        if answers(sample[None], *student)[0].argmax() != base:
            continue
        at = sample
        for _ in range(10):
            logits = answers(at[None], *teacher)[0]
            if logits.argmax() != base:
                break
            away = np.subtract(*(slope(at[None], np.array([k]), *teacher)[0][0] for k in (1 - base, base)))
            length = np.linalg.norm(away)
            size = (logits[base] - logits[1 - base] + 1e-4) / length * (0.3 * std if official else 1 / length)
            at = np.clip(at + size * away, *((-2.5 * std, 2.5 * std) if official else (-4.0, 4.0)))
        if official or answers(at[None], *teacher)[0].argmax() != base:
            found.append(at)
    moved, (w1, b1, w2) = np.array(found), student
    p, q = (softmax(answers(moved, *weights) / temperature) for weights in (teacher, student))
    down = (q - p) / temperature / len(moved)
    hidden = np.maximum(moved @ w1.T + b1, 0)
    return float((p * np.log(p / q)).sum() / len(moved)), {"w1": ((down @ w2) * (hidden > 0)).T @ moved, "w2": down.T @ hidden}


def wasserstein(
    x: Array,
    student: tuple[Array, Array, Array],
    teacher: tuple[Array, Array, Array],
    temperature: float,
    epsilon: float,
    *,
    kl: bool,
    l1: bool,
) -> tuple[float, dict[str, Array]]:
    """Kong 2020: the mean of l, and epsilon times the mean norm of its gradient by x through both networks; l is T^2 KL(p || q) or the
    squared distance of the logits.
    """

    def loss(w1: Array, w2: Array) -> float:
        ours, total, norms = (w1, student[1], w2), 0.0, []
        for sample in x:
            s, t = (answers(sample[None], *weights)[0] for weights in (ours, teacher))
            q, p = softmax(s / temperature), softmax(t / temperature)
            if kl:
                total += temperature**2 * (p * np.log(p / q)).sum()
                by_s = temperature * (q - p)
                by_t = temperature * (np.diag(p) - np.outer(p, p)) @ np.log(p / q)  # the derivative of a softmax, and of p log p
            else:
                total += ((s - t) ** 2).sum()
                by_s, by_t = 2 * (s - t), 2 * (t - s)
            gradient = sum(
                by @ np.concatenate([slope(sample[None], np.array([k]), *weights)[0] for k in range(len(s))])
                for by, weights in ((by_s, ours), (by_t, teacher))
            )
            norms.append(np.abs(gradient).sum() if l1 else np.linalg.norm(gradient))
        return float((total + epsilon * np.sum(norms)) / len(x))

    w1, _, w2 = student
    return loss(w1, w2), {"w1": differences(lambda moved: loss(moved, w2), w1), "w2": differences(lambda moved: loss(w1, moved), w2)}


def distance(student: Sequence[Array], teacher: Sequence[Array], *, squared: bool) -> tuple[float, dict[str, Array]]:
    """Petrushina 2022: the distance of the teacher's weights from the first rows and columns of the student's."""
    gaps = [ours[tuple(map(slice, theirs.shape))] - theirs for ours, theirs in zip(student, teacher, strict=True)]
    total = float(sum((gap**2).sum() for gap in gaps))
    factor = 2.0 if squared else 1 / np.sqrt(total)
    beyond = [[(0, more - extent) for more, extent in zip(w.shape, gap.shape, strict=True)] for w, gap in zip(student, gaps, strict=True)]
    gradients = {f"w{k}": factor * np.pad(gap, more) for k, (gap, more) in enumerate(zip(gaps, beyond, strict=True))}
    return total if squared else float(np.sqrt(total)), gradients


def trace(x: Array, student: tuple[Array, Array, Array], classes: NDArray[np.bool_]) -> tuple[float, dict[str, Array]]:
    """Petrushina 2022: the trace of the Hessian of the mean cross-entropy by w1, b1, w2 and a bias of the logits that is 0. A weight by
    which the logits have the derivatives j adds j^T (diag p - p p^T) j, for their second ones are 0; absent classes have p = 0.
    """

    def value(w1: Array, w2: Array) -> float:
        total = 0.0
        for sample in x:
            before = w1 @ sample + student[1]
            hidden, p = np.maximum(before, 0), np.zeros(len(w2))
            p[classes] = softmax((w2 @ hidden)[classes])
            derivatives = [on * column * entry for on, column in zip(before > 0, w2.T, strict=True) for entry in (*sample, 1.0)]
            derivatives += [row * entry for row in np.eye(len(w2)) for entry in (*hidden, 1.0)]
            total += sum(float(p @ j**2 - (p @ j) ** 2) for j in derivatives)
        return total / len(x)

    w1, _, w2 = student
    return value(w1, w2), {"w1": differences(lambda moved: value(moved, w2), w1), "w2": differences(lambda moved: value(w1, moved), w2)}


def network(name: str, hidden: int) -> tuple[Array, Array, Array]:
    """w1, b1 and w2 of a network from 5 features over some hidden units to 3 logits."""
    return draw(f"{name} w1", hidden, 5), draw(f"{name} b1", hidden), draw(f"{name} w2", 3, hidden)


def inputs() -> dict[str, dict[str, Any]]:
    """What each case is computed from, by the names of the arguments."""
    two = {name: (w1, b1, w2[:2]) for name, (w1, b1, w2) in (("student", network("learner", 6)), ("teacher", network("tutor", 8)))}
    regressor = {"weight": draw("regressor", 2, 3, 3, 2), "bias": draw("bias", 2)}
    few = {"x": draw("x", 3, 5), "student": network("pupil", 4), "teacher": network("master", 6)}
    grown, small = network("grown", 6), network("small", 4)
    hint = {"guided": draw("guided", 2, 3, 5, 4), "hint": draw("hint", 2, 2, 3, 3), **regressor}
    return {
        "kd": {"student": draw("logits", 4, 5), "teacher": 3 * draw("teacher's logits", 4, 5), "temperature": 4.0},
        "fitnet corrected": {**hint, "rows": False},
        "fitnet official": {**hint, "rows": True},
        "at": {"student": draw("student's map", 2, 3, 3, 2), "teacher": draw("teacher's map", 2, 4, 3, 2)},
        "fsp": {
            "student": (draw("first", 2, 2, 4, 4), draw("second", 2, 3, 2, 2)),
            "teacher": (draw("their first", 2, 2, 4, 4), draw("their second", 2, 3, 2, 2)),
        },
        "ab": {"student": 2 * draw("pre-activation", 3, 2, 3, 3), "teacher": draw("their pre-activation", 3, 2, 3, 3), "margin": 1.5},
        "jacobian": {
            "x": draw("x", 4, 5),
            "y": np.array([2, 0, 1, 2]),
            "student": network("student", 6),
            "teacher": network("teacher", 8),
        },
        "wasserstein kl l2": {**few, "temperature": 2.0, "epsilon": 0.5, "kl": True, "l1": False},
        "wasserstein mse l1": {**few, "temperature": 2.0, "epsilon": 0.1, "kl": False, "l1": True},
        "distance corrected": {"student": grown, "teacher": small, "squared": True},
        "distance official": {"student": grown, "teacher": small, "squared": False},
        "trace": {"x": draw("x", 3, 5), "student": network("grown", 4), "classes": np.array([True, True, True])},
        "trace of two classes": {"x": draw("x", 3, 5), "student": network("grown", 4), "classes": np.array([True, False, True])},
        "bss corrected": {"x": draw("x", 12, 5), **two, "temperature": 3.0, "std": 0.8, "official": False},
        "bss official": {"x": draw("x", 12, 5), **two, "temperature": 3.0, "std": 0.8, "official": True},
    }


LOSSES: dict[str, Callable[..., tuple[float, dict[str, Array]]]] = {
    "kd": kd, "fitnet corrected": fitnet, "fitnet official": fitnet, "at": at, "fsp": fsp, "ab": ab, "jacobian": jacobian,
    "distance corrected": distance, "distance official": distance, "trace": trace, "trace of two classes": trace,
    "bss corrected": bss, "bss official": bss, "wasserstein kl l2": wasserstein, "wasserstein mse l1": wasserstein,
}  # fmt: skip


def made() -> dict[str, Any]:
    """The content of the file."""
    cases = {}
    for name, arguments in inputs().items():
        loss, gradients = LOSSES[name](**arguments)
        cases[name] = {"loss": loss, "gradients": {key: gradient.ravel().tolist() for key, gradient in gradients.items()}}
    return {"made by": "tests/core/methods/golden/make.py", "numpy": np.__version__, "cases": cases}


if __name__ == "__main__":
    FILE.write_text(json.dumps(made(), indent=1) + "\n")
