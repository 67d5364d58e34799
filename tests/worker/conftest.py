"""The lab of each test."""

from pathlib import Path

import pytest

from db.session import Database
from tests.worker.lab import Lab


@pytest.fixture(params=["filesystem", pytest.param("redis", marks=pytest.mark.servers)])
def broker_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The two brokers that everything must work on."""
    if request.param == "filesystem":
        return f"filesystem://{tmp_path / 'broker'}"
    url: str = request.getfixturevalue("redis_url")
    return url


@pytest.fixture
def lab(database: Database, database_url: str, tmp_path: Path) -> Lab:
    """Without a broker of note: one folder that nobody rings in."""
    return Lab(database, database_url=database_url, broker_url=f"filesystem://{tmp_path / 'broker'}", folder=tmp_path / "lab")
