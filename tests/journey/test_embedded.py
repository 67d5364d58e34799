"""The journey on one machine: `retort up`."""

from collections.abc import Iterator

import pytest

from tests.journey.stacks import Stack, embedded
from tests.journey.story import Story

pytestmark = pytest.mark.journey


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with embedded(tmp_path_factory.mktemp("embedded")) as running:
        yield running


class TestEmbedded(Story):
    """One folder, one command."""
