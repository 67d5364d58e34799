"""The short set: every scenario a few times on both databases, and nothing is lost, doubled or wrong."""

from collections.abc import Iterator

import pytest

import tests.chaos.scenarios  # noqa: F401
from tests.chaos.catalogue import SCENARIOS, carry_out
from tests.chaos.lab import Dialect, Lab, open_lab

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One for all scenarios of a database."""
    dialect: Dialect = request.param
    with open_lab(tmp_path_factory.mktemp(dialect), dialect) as opened:
        yield opened


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_nothing_is_lost_doubled_or_wrong(lab: Lab, name: str) -> None:
    outcome = carry_out(lab, name, n=3, seed=1)
    assert outcome.violations == []
    assert outcome.jobs
