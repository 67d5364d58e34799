"""Two tenants, for every test of the database, and a directory of large blobs for those that ask for one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from db.access import Tenant, create_tenant
from db.session import Database, connect


@pytest.fixture
def tenant(database: Database) -> Tenant:
    """Whose rows a test makes."""
    return create_tenant(database, "ours")


@pytest.fixture
def stranger(database: Database) -> Tenant:
    """Who must not see them."""
    return create_tenant(database, "theirs")


@pytest.fixture
def beside(database_url: str, tmp_path: Path) -> Iterator[Database]:
    """The test's database with a directory beside it."""
    db = connect(database_url, directory=tmp_path / "blobs")
    yield db
    db.close()


@pytest.fixture(params=["rows", "files"])
def placed(request: pytest.FixtureRequest) -> Database:
    """The test's database without, and with, a directory for what is large."""
    found: Database = request.getfixturevalue("database" if request.param == "rows" else "beside")
    return found
