"""Keys: shown once, kept as a hash, closed at once."""

import re

import pytest
import sqlalchemy as sa

from db import access
from db.access import Tenant
from db.session import Database
from db.tables import api_key


def test_a_key_opens_the_door_of_its_tenant(database: Database, tenant: Tenant, stranger: Tenant) -> None:
    ours, theirs = access.create_key(database, tenant, name="a"), access.create_key(database, stranger, name="b")
    assert re.fullmatch(r"rt_[0-9a-z]{8}_[A-Za-z0-9_-]{43}", ours)
    assert access.authenticate(database, ours) == tenant
    assert access.authenticate(database, theirs) == stranger


def test_what_is_not_a_key_opens_nothing(database: Database, tenant: Tenant) -> None:
    key = access.create_key(database, tenant, name="a")
    prefix, handle, secret = key.split("_", 2)
    wrong = [
        "", "rt", "rt_", "rt__", key[:-1], key + "x", f"xx_{handle}_{secret}", f"{prefix}_00000000_{secret}", f"{prefix}_{handle}_",
        f"rt_{handle}\0_{secret}", f"rt_{handle}_\ud800", "rt_\udfff_x", "é" * 99, "x" * 100_000,
    ]  # fmt: skip
    assert [access.authenticate(database, attempt) for attempt in wrong] == [None] * len(wrong)


def test_the_secret_is_not_kept(database: Database, tenant: Tenant) -> None:
    secret = access.create_key(database, tenant, name="a").split("_", 2)[2]
    with database.read() as tx:
        assert secret not in repr(tx.execute(sa.select(api_key)).all())


def test_a_revoked_key_opens_nothing_and_is_not_listed(database: Database, tenant: Tenant, stranger: Tenant) -> None:
    key, other = access.create_key(database, tenant, name="a"), access.create_key(database, tenant, name="b")
    first, second = access.list_keys(database, tenant)
    assert (first.name, second.name, first.handle) == ("a", "b", key.split("_")[1])
    assert not access.revoke_key(database, stranger, first.id)
    assert access.revoke_key(database, tenant, first.id)
    assert not access.revoke_key(database, tenant, first.id)
    assert access.authenticate(database, key) is None
    assert access.authenticate(database, other) == tenant
    assert [one.name for one in access.list_keys(database, tenant)] == ["b"]


def test_the_last_use_of_a_key_is_noted_once_a_minute(database: Database, tenant: Tenant) -> None:
    key = access.create_key(database, tenant, name="a")

    def last_used() -> float | None:
        return access.list_keys(database, tenant)[0].last_used_at

    assert last_used() is None
    access.authenticate(database, key)
    first = last_used()
    assert first is not None
    access.authenticate(database, key)
    assert last_used() == first
    with database.begin() as tx:
        tx.execute(sa.update(api_key).values(last_used_at=api_key.c.last_used_at - 61))
    access.authenticate(database, key)
    assert last_used() == pytest.approx(first, abs=60)
    assert last_used() != first - 61
