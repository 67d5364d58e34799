"""The long set leaves nothing out."""

from tests.chaos.__main__ import OFTEN
from tests.chaos.catalogue import SCENARIOS


def test_the_long_set_knows_how_often_for_every_scenario() -> None:
    assert OFTEN.keys() == SCENARIOS.keys()
