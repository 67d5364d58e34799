"""Two ways to do one thing, timed in turns in one process."""

import statistics
import time
from collections.abc import Callable
from typing import Any


def turns(first: Callable[[], object], second: Callable[[], object], *, rounds: int, steps: int = 1) -> dict[str, Any]:
    """How long `second` takes in units of `first`, round by round: {"n", "ratio": {"median", "min", "max"}, "first_ms", "second_ms"}.

    In each round both run `steps` times, after one run more that brings back into the caches what the other has displaced; in every second
    round the order is reversed. Milliseconds are of one step, the median over the rounds.
    """
    ratios, spent = list[float](), {"first": list[float](), "second": list[float]()}
    for number in range(rounds):
        both = (("first", first), ("second", second))
        for name, one in both if number % 2 == 0 else both[::-1]:
            one()
            began = time.perf_counter()
            for _ in range(steps):
                one()
            spent[name].append(1000 * (time.perf_counter() - began) / steps)
        ratios.append(spent["second"][-1] / spent["first"][-1])
    return {
        "n": rounds,
        "ratio": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
        **{f"{name}_ms": statistics.median(times) for name, times in spent.items()},
    }
