"""The short set on one machine: SQLite and a folder of messages."""

from collections.abc import Iterator

import pytest

from tests.chaos.lab import Lab
from tests.chaos.short import Short, lab_of, names


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Without a server."""
    yield from lab_of("sqlite", tmp_path_factory, embedded=True)


@pytest.mark.parametrize("name", names("sqlite", embedded=True))
class TestEmbedded(Short):
    """Workers that look into a folder."""
