"""Submitting: accepted once, capped, remembered."""

import pytest
import sqlalchemy as sa

from db import life
from db.access import Tenant
from db.session import Database
from db.tables import idempotency_key
from tests.db.given import running, submitted, told


def test_a_submitted_job_is_queued_with_its_first_event(database: Database, tenant: Tenant) -> None:
    new = submitted(database, tenant, metadata={"who": "me \0"}, seconds_limit=60.0, priority=2, queue="gpu")
    assert (new.state, new.desired, new.kind, new.fence, new.attempt, new.queue, new.priority) == (
        "queued",
        "run",
        "distil",
        0,
        0,
        "gpu",
        2,
    )
    assert (new.metadata, new.seconds_limit, new.deadline, new.checkpoint) == ({"who": "me \0"}, 60.0, None, None)
    assert [(event.seq, event.kind, event.data) for event in told(database, new)] == [(1, "status", {"state": "queued", "desired": "run"})]


def test_the_same_key_and_body_twice_is_one_job(database: Database, tenant: Tenant) -> None:
    first = submitted(database, tenant, idempotency=("k", "body"))
    assert submitted(database, tenant, idempotency=("k", "body")).id == first.id
    assert submitted(database, tenant, idempotency=("another", "body")).id != first.id


def test_a_key_used_for_another_body_is_refused(database: Database, tenant: Tenant) -> None:
    submitted(database, tenant, idempotency=("k", "body"))
    with pytest.raises(life.KeyReused):
        submitted(database, tenant, idempotency=("k", "another body"))


def test_a_key_is_a_tenants_own(database: Database, tenant: Tenant, stranger: Tenant) -> None:
    first = submitted(database, tenant, idempotency=("k", "body"))
    assert submitted(database, stranger, idempotency=("k", "another body")).id != first.id


def test_a_key_is_forgotten_after_three_days(database: Database, tenant: Tenant) -> None:
    first = submitted(database, tenant, idempotency=("k", "body"))
    with database.begin() as tx:
        tx.execute(sa.update(idempotency_key).values(created_at=idempotency_key.c.created_at - 72 * 3600))
    second = submitted(database, tenant, idempotency=("k", "another body"))
    assert second.id != first.id
    assert submitted(database, tenant, idempotency=("k", "another body")).id == second.id


def test_a_tenant_has_so_many_waiting_jobs_and_no_more(database: Database, tenant: Tenant, stranger: Tenant) -> None:
    first = submitted(database, tenant, max_queued=1, idempotency=("k", "body"))
    with pytest.raises(life.TooManyQueued):
        submitted(database, tenant, max_queued=1)
    assert submitted(database, tenant, max_queued=1, idempotency=("k", "body")).id == first.id
    submitted(database, stranger, max_queued=1)


def test_jobs_that_run_do_not_count_as_waiting(database: Database, tenant: Tenant) -> None:
    running(database, tenant)
    submitted(database, tenant, max_queued=1)


def test_a_parent_must_be_a_job_of_the_same_tenant(database: Database, tenant: Tenant, stranger: Tenant) -> None:
    parent = submitted(database, tenant)
    assert submitted(database, tenant, parent=parent.id).parent == parent.id
    with pytest.raises(sa.exc.IntegrityError):
        submitted(database, stranger, parent=parent.id)
