"""The short set: every scenario a few times, and nothing is lost, doubled or wrong. Each database has a file of its own with a `lab`."""

from collections.abc import Iterator

import pytest

from tests.chaos.catalogue import SCENARIOS, carry_out
from tests.chaos.lab import Dialect, Lab, open_lab
from tests.chaos.scenarios import points, poison

OFTEN = {"W2": len(points.POINTS), "P1": len(poison.WAYS), "A1": 2, "A2": 2, "R1": 1, "D5": 2}
"""Every crash point, and every way to die; else three times, and less where a start costs seconds."""


ELSEWHERE = ("broker", "clock", "database", "disk")
"""These themes have a short set of their own: test_short_net.py."""
LONG = ("shipped",)
"""These wait for the times of the service as it is shipped."""


class Short:
    """On one database."""

    def test_nothing_is_lost_doubled_or_wrong(self, lab: Lab, name: str) -> None:
        outcome = carry_out(lab, name, n=OFTEN.get(name, 3), seed=1)
        assert outcome.violations == []
        assert outcome.jobs
        assert outcome.faults


def names(dialect: Dialect, *, embedded: bool = False) -> list[str]:
    """The scenarios of a database."""
    here = {name: each for name, each in SCENARIOS.items() if each.carry_out.__module__.rpartition(".")[2] not in ELSEWHERE + LONG}
    return sorted(name for name, each in here.items() if dialect in each.dialects and each.embedded == embedded)


def lab_of(dialect: Dialect, factory: pytest.TempPathFactory, *, embedded: bool = False) -> Iterator[Lab]:
    """One laboratory for all scenarios of a module."""
    with open_lab(factory.mktemp(dialect), dialect, embedded=embedded) as opened:
        yield opened
