"""Two tenants, for every test of the database."""

import pytest

from db.access import Tenant, create_tenant
from db.session import Database


@pytest.fixture
def tenant(database: Database) -> Tenant:
    """Whose rows a test makes."""
    return create_tenant(database, "ours")


@pytest.fixture
def stranger(database: Database) -> Tenant:
    """Who must not see them."""
    return create_tenant(database, "theirs")
