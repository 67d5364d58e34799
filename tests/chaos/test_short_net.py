"""The short set of a broker, a database, a disk and a clock that fail: a few of each, and nothing is lost, doubled or wrong."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache

import pytest

from tests.chaos import scenarios
from tests.chaos.catalogue import SCENARIOS, carry_out
from tests.chaos.lab import Dialect, Lab, open_lab
from tests.chaos.short import ELSEWHERE

pytestmark = pytest.mark.servers

OFTEN = {"B1": 1, "B2": 1, "B3": 2, "B4": 5, "B5": 1, "D1": 1, "D2": 4, "D3": 1, "D4": 10, "S1": 1, "S1 database": 1, "W7": 1}
"""B4 has five ways to fail, D2 four places; a restart and a full disk cost seconds each."""
HERE = sorted(
    (dialect, each.name)
    for each in SCENARIOS.values()
    if each.carry_out.__module__.removeprefix(f"{scenarios.__name__}.") in ELSEWHERE
    for dialect in each.dialects
)


@pytest.fixture(scope="module")
def lab_on(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Dialect], Lab]]:
    """One laboratory a database for all scenarios, opened when the first of them comes."""
    with ExitStack() as stack:
        yield cache(lambda dialect: stack.enter_context(open_lab(tmp_path_factory.mktemp(dialect), dialect)))


@pytest.mark.parametrize(("dialect", "name"), HERE)
def test_nothing_is_lost_doubled_or_wrong(lab_on: Callable[[Dialect], Lab], dialect: Dialect, name: str) -> None:
    outcome = carry_out(lab_on(dialect), name, n=OFTEN[name], seed=1)
    if outcome.missing:
        pytest.skip(outcome.missing)
    assert outcome.violations == []
    assert outcome.faults
