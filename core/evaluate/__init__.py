"""Measure a network on data it was not trained on: one pass, one yield a batch, so that nobody waits long for a sign of life."""

from collections.abc import Iterator, Mapping

import torch

from core.data.rows import Rows
from core.evaluate.accuracy import Accuracy
from core.evaluate.agreement import Agreement
from core.taps import Tapped

Values = Mapping[str, float]


def evaluate(
    network: Tapped, rows: Rows, device: torch.device | str = "cpu", batch_size: int | None = None, *, against: Tapped | None = None
) -> Iterator[Values | None]:
    """Accuracy and loss of `network` over all of `rows`, unaugmented and in eval mode; modules get their own modes back.

    Yields None after each batch and last {"accuracy", "loss", "n"}: the share of top-1 hits in [0, 1], the mean cross-entropy in nats,
    the number of samples. With `against`, a network of the same classes, also "agreement", the share on which both have the same top-1, and
    "max_abs_diff", the largest difference of two logits. Of rows without labels there is no accuracy and no loss.
    `batch_size` is `rows.together` when left out. ValueError for no rows, an accuracy of nothing is not a number, and for rows without
    labels and nothing that `network` is held against.
    """
    if len(rows) == 0:
        raise ValueError("there are no rows to evaluate on")
    if not rows.labelled and against is None:
        raise ValueError("the rows have no labels, and there is no network whose answers could stand for them")
    accuracy, agreement = Accuracy(device) if rows.labelled else None, Agreement(device)
    for batch in rows.batches(batch_size or rows.together, device):
        # The mode must not be on while a consumer runs: compute, leave, then yield.
        with torch.no_grad(), network.quiet():
            logits = rows.answers(network(batch.x).logits)
            if accuracy is not None:
                accuracy.add(logits, batch.y)
        if against is not None:
            with torch.no_grad(), against.quiet():
                agreement.add(logits, rows.answers(against(batch.x).logits))
        yield None
    counted = {"n": len(rows)} if accuracy is None else accuracy.values()
    yield counted if against is None else {**counted, **agreement.values()}
