"""The journey on many machines: the services of docker-compose.yml as processes, on PostgreSQL and Redis."""

from collections.abc import Iterator

import pytest

from tests.journey.in_and_out import InAndOut
from tests.journey.stacks import Stack, many_machines
from tests.journey.story import Story

pytestmark = [pytest.mark.journey, pytest.mark.servers]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, postgres_url: str, redis_url: str) -> Iterator[Stack]:
    with many_machines(tmp_path_factory.mktemp("many"), postgres=postgres_url, redis=redis_url) as running:
        yield running


class TestManyMachines(Story):
    """A migration, the API, two workers."""


class TestInAndOut(InAndOut):
    """In and out: PostgreSQL, Redis, two workers."""
