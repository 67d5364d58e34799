"""A full database says so, keeps what it has, and takes what is written once there is room again."""

from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from db import access, life
from db.access import Tenant
from db.blobs import Blobs, has_room
from db.places import CHUNK
from db.session import Database, Full, Unavailable, clock
from db.tables import job as jobs
from tests.db.given import PROBLEM, claimed, reread, running, told
from tests.db.room import full

LARGE = bytes(range(256)) * (3 * CHUNK // 256)


def test_a_full_database_refuses_what_is_large_and_takes_what_is_small(database: Database, database_url: str, tenant: Tenant) -> None:
    claim = running(database, tenant)
    kept = Blobs(database, tenant).put([b"before"])
    with full(database_url):
        with pytest.raises(Full, match=r"full|No space left"):
            Blobs(database, tenant).put([LARGE])
        assert not has_room(database, tenant.id)
        assert life.record(database, claim, [("log", {"message": "still here"})])
        assert b"".join(Blobs(database, tenant).get(kept)) == b"before"
    assert has_room(database, tenant.id)
    digest = Blobs(database, tenant).put([LARGE])
    assert b"".join(Blobs(database, tenant).get(digest)) == LARGE


def test_a_full_database_is_one_that_cannot_write(database: Database, database_url: str, tenant: Tenant) -> None:
    with full(database_url), pytest.raises(Unavailable):
        Blobs(database, tenant).put([LARGE])


def test_a_job_without_room_is_paused_by_the_service_and_queued_when_there_is_some(database: Database, tenant: Tenant) -> None:
    claim = running(database, tenant)
    assert life.shelve(database, claim, problem=PROBLEM, pause=0) == "paused"
    assert life.shelve(database, claim, problem=PROBLEM, pause=0) == "paused"  # a repetition after a commit of unknown outcome
    job = reread(database, claim.job)
    assert (job.state, job.desired, job.code, job.problem) == ("paused", "pause", "storage_full", PROBLEM)
    assert (job.attempt, job.crashes) == (0, 0)
    assert told(database, job, "status")[-1].data == {"state": "paused", "desired": "pause", "code": "storage_full"}
    assert life.shelved(database, ["cpu"]) == tenant.id
    assert [each.id for each in life.unshelve(database, ["cpu"])] == [job.id]
    job = reread(database, claim.job)
    assert (job.state, job.desired, job.code, job.problem) == ("queued", "run", None, None)
    assert life.shelved(database, ["cpu"]) is None


def test_room_is_looked_for_later_each_time_that_a_job_found_none(database: Database, tenant: Tenant) -> None:
    job, waits = running(database, tenant), []
    for _ in range(3):
        life.end_attempt(database, job, exit_code=None, signal=None, max_rss=None, code="storage_full", log_tail="")
        life.shelve(database, job, problem=PROBLEM, pause=1000)
        with database.read() as tx:
            waits.append(tx.execute(sa.select(jobs.c.run_after - clock())).scalar_one())
        life.resume(database, tenant, job.job.id)
        job = claimed(database)
    assert waits == [pytest.approx(expected, abs=60) for expected in (1000, 2000, 4000)]


def test_room_is_looked_for_only_after_the_pause_and_only_by_workers_of_the_queue(database: Database, tenant: Tenant) -> None:
    life.shelve(database, running(database, tenant, queue="gpu"), problem=PROBLEM, pause=0)
    life.shelve(database, running(database, tenant), problem=PROBLEM, pause=3600)
    assert life.shelved(database, ["cpu"]) is None
    assert life.unshelve(database, ["cpu"]) == []
    assert len(life.unshelve(database, ["gpu"])) == 1


@pytest.mark.parametrize(("wish", "state", "code"), [(life.pause, "paused", None), (life.cancel, "cancelled", "cancelled")])
def test_what_the_user_wished_meanwhile_comes_first(
    database: Database, tenant: Tenant, wish: Callable[[Database, Tenant, str], object], state: str, code: str | None
) -> None:
    claim = running(database, tenant)
    wish(database, tenant, claim.job.id)
    assert life.shelve(database, claim, problem=PROBLEM, pause=0) == state
    job = reread(database, claim.job)
    assert (job.state, job.code, job.problem) == (state, code, None)
    assert life.unshelve(database, ["cpu"]) == []


def test_a_user_may_resume_cancel_and_pause_what_the_service_has_paused(database: Database, tenant: Tenant) -> None:
    one, two, three = (running(database, tenant) for _ in range(3))
    for claim in (one, two, three):
        life.shelve(database, claim, problem=PROBLEM, pause=0)
    resumed = life.resume(database, tenant, one.job.id)
    cancelled = life.cancel(database, tenant, two.job.id)
    paused = life.pause(database, tenant, three.job.id)
    assert resumed is not None
    assert cancelled is not None
    assert paused is not None
    assert (resumed.state, resumed.code, resumed.problem) == ("queued", None, None)
    assert (cancelled.state, cancelled.code) == ("cancelled", "cancelled")
    assert (paused.state, paused.code, paused.problem) == ("paused", None, None)
    assert life.unshelve(database, ["cpu"]) == []


def test_whoever_lost_the_claim_shelves_nothing(database: Database, tenant: Tenant) -> None:
    claim = running(database, tenant)
    life.renew(database, claim, lease=-1)
    life.reap(database, max_crashes=3, since=1, lease=0)
    before = reread(database, claim.job)
    stale = life.Claim(claim.job, claim.fence)
    assert life.shelve(database, stale, problem=PROBLEM, pause=0) is None
    assert reread(database, claim.job) == before


@pytest.mark.parametrize("dialect", [pytest.param("postgresql", marks=pytest.mark.servers)])
def test_a_key_opens_the_door_also_while_nothing_can_be_written(database: Database, tenant: Tenant) -> None:
    key = access.create_key(database, tenant, name="k")
    with database.begin() as tx:
        tx.exec_driver_sql(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'disk_full'; END $$"
        )
        tx.exec_driver_sql("CREATE TRIGGER refuse BEFORE UPDATE ON api_key FOR EACH ROW EXECUTE FUNCTION refuse()")
    assert access.authenticate(database, key) == tenant
    assert access.list_keys(database, tenant)[0].last_used_at is None


@pytest.mark.parametrize("dialect", ["sqlite"])
def test_an_sqlite_database_knows_its_file(database: Database, tmp_path: Path) -> None:
    assert database.file == tmp_path / "retort.db"


@pytest.mark.parametrize("dialect", [pytest.param("postgresql", marks=pytest.mark.servers)])
def test_a_server_has_no_file_here(database: Database) -> None:
    assert database.file is None
