"""Jobs as they are read."""

from db import jobs, life
from db.access import Tenant
from db.session import Database
from tests.db.given import PROBLEM, claimed, created, running, submitted


def test_jobs_are_listed_newest_first_and_page_by_page_without_inspections(database: Database, tenant: Tenant) -> None:
    made = [submitted(database, tenant).id for _ in range(3)]
    created(database, tenant)
    assert [job.id for job in jobs.list_jobs(database, tenant, limit=2)] == made[:0:-1]
    assert [job.id for job in jobs.list_jobs(database, tenant, limit=2, after=made[1])] == made[:1]


def test_jobs_are_listed_by_state(database: Database, tenant: Tenant) -> None:
    first = running(database, tenant)
    second = submitted(database, tenant)
    assert [job.id for job in jobs.list_jobs(database, tenant, states=["queued"], limit=9)] == [second.id]
    assert len(jobs.list_jobs(database, tenant, states=["queued", "running"], limit=9)) == 2
    assert jobs.list_jobs(database, tenant, states=["failed"], limit=9) == []
    assert jobs.get_job(database, tenant, first.job.id) == first.job


def test_the_same_request_is_found_unless_it_ended_badly(database: Database, tenant: Tenant) -> None:
    sha = "b" * 64
    assert jobs.find_by_spec(database, tenant, sha) is None
    failed = running(database, tenant, spec_sha=sha)
    life.fail(database, failed, code="diverged", problem=PROBLEM)
    life.cancel(database, tenant, submitted(database, tenant, spec_sha=sha).id)
    assert jobs.find_by_spec(database, tenant, sha) is None
    done = running(database, tenant, spec_sha=sha)
    newest = submitted(database, tenant, spec_sha=sha)
    found = jobs.find_by_spec(database, tenant, sha)
    assert found is not None
    assert found.id == newest.id
    life.complete(database, done, result={})
    found = jobs.find_by_spec(database, tenant, sha)
    assert found is not None
    assert found.id == done.job.id


def test_every_attempt_is_listed_in_order(database: Database, tenant: Tenant) -> None:
    submitted(database, tenant)
    for code in ("stalled", "oom_host"):
        claim = claimed(database, worker=code)
        life.end_attempt(database, claim, exit_code=1, signal=None, max_rss=5, code=code, log_tail="tail")
        life.yield_(database, claim)
    found = jobs.attempts(database, tenant, claim.job.id)
    assert [(one.fence, one.worker, one.code, one.log_tail) for one in found] == [
        (1, "stalled", "stalled", "tail"),
        (2, "oom_host", "oom_host", "tail"),
    ]
