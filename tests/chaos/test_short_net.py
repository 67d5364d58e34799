"""The short set of the broker's, the database's and the clock's faults: a few of each, and nothing is lost, doubled or wrong."""

from collections.abc import Iterator

import pytest

import tests.chaos.scenarios.broker
import tests.chaos.scenarios.clock
import tests.chaos.scenarios.database  # noqa: F401
from tests.chaos.catalogue import carry_out
from tests.chaos.lab import Lab, open_lab

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One laboratory for all."""
    with open_lab(tmp_path_factory.mktemp("postgresql"), "postgresql") as lab:
        yield lab


@pytest.mark.parametrize(("name", "n"), [("B2", 1), ("B4", 5), ("B5", 1), ("D1", 2), ("D2", 3), ("D3", 1), ("D4", 10), ("W7", 1)])
def test_nothing_is_lost_doubled_or_wrong(postgres: Lab, name: str, n: int) -> None:
    outcome = carry_out(postgres, name, n=n, seed=1)
    assert outcome.violations == []
    assert outcome.jobs
    assert sum(outcome.faults.values()) >= n
