"""The short set on SQLite."""

from collections.abc import Iterator

import pytest

from tests.chaos.lab import Lab
from tests.chaos.short import Short, lab_of, names

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """With Redis."""
    yield from lab_of("sqlite", tmp_path_factory)


@pytest.mark.parametrize("name", names("sqlite"))
class TestWithRedis(Short):
    """Workers that are woken through Redis."""
