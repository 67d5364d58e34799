"""The scenarios by name, and how one is carried out: faults, then rest, then the twelve invariants."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from tests.chaos.invariants import Violation, violations
from tests.chaos.lab import Dialect, Lab, open_lab


@dataclass(slots=True)
class Times:
    """What was measured: seconds, by the name of what took them."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Measure what happens inside; what raises is not counted."""
        began = monotonic()
        yield
        self.seconds[name].append(monotonic() - began)

    def add(self, name: str, seconds: float) -> None:
        """Note what was measured elsewhere."""
        self.seconds[name].append(seconds)


class Missing(Exception):
    """What a scenario needs is not on this machine; the message says what, and where it comes from."""


Procedure = Callable[[Lab, int, random.Random, Times], None]
"""What a scenario does `n` times in a laboratory, with seeded draws."""
BOTH: tuple[Dialect, ...] = ("sqlite", "postgresql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A fault or a load. `embedded`: with a folder of messages in place of Redis."""

    name: str
    what: str
    carry_out: Procedure
    dialects: tuple[Dialect, ...] = BOTH
    embedded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of it."""

    scenario: str
    database: str
    n: int
    seed: int
    jobs: int
    faults: dict[str, int]
    violations: list[Violation]
    seconds: dict[str, list[float]]
    missing: str = ""
    """What this machine lacks, where that was a reason to do nothing."""


SCENARIOS: dict[str, Scenario] = {}


def scenario(name: str, *, dialects: tuple[Dialect, ...] = BOTH, embedded: bool = False) -> Callable[[Procedure], Procedure]:
    """Enter a procedure into the catalogue; the first line of its docstring says what it does."""

    def enter(procedure: Procedure) -> Procedure:
        what = (procedure.__doc__ or "").partition("\n")[0]
        SCENARIOS[name] = Scenario(name=name, what=what, carry_out=procedure, dialects=dialects, embedded=embedded)
        return procedure

    return enter


def carry_out(lab: Lab, name: str, *, n: int, seed: int) -> Outcome:
    """One scenario in a laboratory that may have seen others."""
    times = Times()
    lab.begin(name)
    broken, lacking = [], ""
    try:
        SCENARIOS[name].carry_out(lab, n, random.Random(f"{seed} {name}"), times)
    except Missing as missing:
        lacking = str(missing)
    except AssertionError as promise:  # what only the scenario itself can see; the invariants are still to be asked
        broken.append(Violation("promise", "", str(promise)))
    lab.settle()
    return Outcome(
        scenario=name, database=lab.database.dialect, n=n, seed=seed, jobs=len(lab.accepted), faults=dict(lab.log.counts),
        violations=[*broken, *violations(lab)], seconds=dict(times.seconds), missing=lacking,
    )  # fmt: skip


def batches(n: int, most: int) -> Iterator[int]:
    """`n` in parts of at most `most`."""
    for first in range(0, n, most):
        yield min(most, n - first)


@contextmanager
def laboratory(folder: Path, name: str, dialect: Dialect) -> Iterator[Lab]:
    """A laboratory for one scenario."""
    with open_lab(folder, dialect, embedded=SCENARIOS[name].embedded) as lab:
        yield lab
