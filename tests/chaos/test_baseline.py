"""The comparison counts what is lost and what is not: without a fault nothing, with a flushed broker what had waited there."""

import pytest

from tests.chaos.baseline import JOBS, QUEUED, suffer

pytestmark = pytest.mark.servers


def test_plain_celery_completes_everything_once_where_nothing_fails() -> None:
    outcome = suffer("none", 1, seed=1, reject=False)
    assert (outcome.faults, outcome.accepted, outcome.at_rest) == (0, JOBS, True)
    assert (outcome.lost, outcome.completed_twice, outcome.wrong) == (0, 0, 0)


def test_plain_celery_loses_what_waits_in_a_flushed_broker() -> None:
    outcome = suffer("flush", 1, seed=1, reject=False)
    assert (outcome.faults, outcome.accepted, outcome.at_rest) == (1, QUEUED, True)
    assert 0 < outcome.lost < QUEUED
    assert outcome.wrong == 0
