"""When there is no room, and when what was kept has gone bad: the job waits or goes on from what is left, and nothing is lost."""

import hashlib
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import sqlalchemy as sa

from core.blobs import CHUNK, NO_ROOM, Directory
from core.events import Checkpointed
from db import life
from db.blobs import Blobs
from db.tables import blob, blob_chunk, checkpoint
from tests.db.room import full
from tests.worker.lab import Lab, lives, until
from tests.worker.test_stage import Far
from worker.lease import Lease
from worker.record import Recorder
from worker.settle import shelve
from worker.stage import JobFolder, NoRoom, is_roomy, keep, stage

LARGE = 2 * CHUNK
"""Of a checkpoint that a full database does not take."""


def _shelved(lab: Lab, id: str) -> life.Job:
    job = lab.job(id)
    assert (job.state, job.desired, job.code) == ("paused", "pause", "storage_full")
    assert (job.attempt, job.crashes) == (0, 0)
    assert job.problem is not None
    assert (job.problem["code"], job.problem["fault"]) == ("storage_full", "system")
    assert "full" in job.problem["reason"]
    assert job.problem["hint"]
    return job


def test_a_checkpoint_that_found_no_room_is_kept_when_there_is_some_and_the_job_has_gone_on(lab: Lab, database_url: str) -> None:
    id = lab.submit(steps=100_000, pause=0.02, every=5, size=LARGE)
    with lab.means() as means:
        working = threading.Thread(target=lab.attempt, args=(id, means))
        working.start()
        until(lambda: lab.job(id).checkpoint)
        with full(database_url):
            failed = until(lambda: lab.events(id, "checkpoint_failed"))[-1].data
            assert "full" in failed["reason"]
            told = lab.steps(id)[-1]
            until(lambda: lab.steps(id)[-1] > told)
            assert lab.job(id).state == "running"
        held = until(lambda: kept if (kept := lab.job(id).checkpoint) and kept["done"] >= failed["done"] else None)
        assert b"".join(lab.blobs.get(held["blob"])).startswith(b'{"done": ')
        life.pause(lab.database, lab.tenant, id)
        working.join()
    job = lab.job(id)
    assert (job.state, job.code, job.fence) == ("paused", None, 1)
    assert lab.steps(id) == list(range(1, lab.steps(id)[-1] + 1))


def test_a_job_without_room_for_long_is_paused_with_its_last_checkpoint_and_goes_on_from_it(lab: Lab, database_url: str) -> None:
    id = lab.submit(steps=100_000, pause=0.02, every=5, size=LARGE)
    with lab.means(storage_patience=0.5) as means:
        working = threading.Thread(target=lab.attempt, args=(id, means))
        working.start()
        until(lambda: lab.job(id).checkpoint)
        with full(database_url):
            working.join(60)
            job = _shelved(lab, id)
        assert job.checkpoint is not None
        assert b"".join(lab.blobs.get(job.checkpoint["blob"])).startswith(b'{"done": ')
        assert lab.attempts(id)[0].code == "storage_full"
        assert until(lambda: life.unshelve(lab.database, ["cpu"]))[0].id == id
        working = threading.Thread(target=lab.attempt, args=(id, means))
        working.start()
        again = until(lambda: [event for event in lab.events(id, "metrics") if event.fence == 2])
        assert again[0].data["first"] == job.checkpoint["done"] + 1
        life.cancel(lab.database, lab.tenant, id)
        working.join()


def test_where_not_even_a_word_finds_room_the_job_is_paused_as_soon_as_one_does(lab: Lab, database_url: str) -> None:
    id = lab.submit(steps=100_000, pause=0.002, every=5)
    with lab.means(storage_patience=0.3) as means:
        working = threading.Thread(target=lab.attempt, args=(id, means))
        working.start()
        pid = lab.pid(id)
        until(lambda: lab.job(id).checkpoint)
        with full(database_url, spare=0):
            until(lambda: not lives(pid))
        working.join(60)
        job = _shelved(lab, id)
    assert job.checkpoint is not None
    assert b"".join(lab.blobs.get(job.checkpoint["blob"])).startswith(b'{"done": ')
    assert lab.steps(id) == list(range(1, lab.steps(id)[-1] + 1))


def test_a_claim_without_a_job_folder_is_shelved_with_its_attempt(lab: Lab) -> None:
    id = lab.submit()
    claim = life.claim(lab.database, worker="w", queues=["cpu"], lease=60)
    assert claim is not None
    shelve(lab.settings(), lab.database, claim, NoRoom("the worker's disk is full"), stopping=threading.Event())
    _shelved(lab, id)
    assert lab.attempts(id)[0].code == "storage_full"


def test_a_worker_lets_jobs_go_on_once_there_is_room_and_not_before(lab: Lab, database_url: str) -> None:
    id = lab.submit()
    claim = life.claim(lab.database, worker="w", queues=["cpu"], lease=60)
    assert claim is not None
    problem = {"where": "", "reason": "the disk is full", "hint": "", "code": "storage_full"}
    life.shelve(lab.database, claim, problem=problem, pause=0)
    shared = lab.database.dialect == "postgresql"  # what SQLite refuses in this process it takes from another
    with ExitStack() as filled:
        if shared:
            filled.enter_context(full(database_url))
        with lab.worker():
            if shared:
                until(lambda: "no room yet" in (lab.folder / "worker.log").read_text())
                assert lab.job(id).state == "paused"
            filled.close()
            lab.reaches(id, "succeeded")


def test_a_child_that_met_a_full_disk_waits_for_room(lab: Lab) -> None:
    id = lab.submit(die="fill")
    with lab.means(max_crashes=1) as means:
        lab.work(id, means)
    _shelved(lab, id)


def test_an_export_that_finds_no_room_costs_neither_a_crash_nor_what_was_trained(lab: Lab, database_url: str) -> None:
    id = lab.submit(steps=10, every=10, weights=LARGE)
    with lab.means(max_crashes=1) as means:
        with full(database_url):
            lab.work(id, means)
            job = _shelved(lab, id)
        assert job.checkpoint is not None
        assert job.checkpoint["done"] == 10
        until(lambda: life.unshelve(lab.database, ["cpu"]))
        assert lab.work(id, means).state == "succeeded"


@pytest.mark.parametrize(
    "harm",
    [
        sa.update(blob_chunk).values(data=b"others"),
        sa.delete(blob_chunk),
        sa.update(blob_chunk).values(data=sa.func.substr(blob_chunk.c.data, 1, 5)),
    ],
    ids=["changed", "lost", "truncated"],
)
def test_a_checkpoint_that_went_bad_is_forgotten_and_the_one_before_it_used(lab: Lab, harm: sa.Update | sa.Delete) -> None:
    id = lab.submit(steps=40, pause=0.01, every=1, die="raise", at=20)
    with lab.means(max_crashes=9) as means:
        assert lab.work(id, means).state == "queued"
        last, before = _spoil(lab, id, harm, newest=1)
        assert lab.work(id, means).state in ("queued", "quarantined")
        assert [(event.data["done"], event.data["resumes_from"]) for event in lab.events(id, "checkpoint_corrupt")] == [(last, before)]
        assert next(event.data["first"] for event in lab.events(id, "metrics") if event.fence == 2) == before + 1
        again = lab.job(id).checkpoint
        assert again is not None
        assert again["done"] > before
        assert b"".join(lab.blobs.get(again["blob"])).startswith(b'{"done": ')
    assert lab.steps(id) == list(range(1, 21))


def test_where_no_checkpoint_is_good_the_job_begins_anew(lab: Lab) -> None:
    id = lab.submit(steps=30, pause=0.01, every=1, die="raise", at=20)
    with lab.means(max_crashes=9) as means:
        lab.work(id, means)
        last, before = _spoil(lab, id, sa.delete(blob_chunk), newest=9)
        lab.work(id, means)
    told = [(event.data["done"], event.data["resumes_from"]) for event in lab.events(id, "checkpoint_corrupt")]
    assert told == [(last, before), (before, None)]
    assert next(event.data["first"] for event in lab.events(id, "metrics") if event.fence == 2) == 1


def test_a_checkpoint_that_the_child_cannot_read_is_no_crash(lab: Lab) -> None:
    id = lab.submit(steps=40, pause=0.01, every=1, die="raise", at=20)
    with lab.means(max_crashes=2) as means:
        stopped = lab.work(id, means)
        assert stopped.checkpoint is not None
        done = stopped.checkpoint["done"]
        child = lab.submit(steps=40, pause=0.01, unreadable=done)
        life.cancel(lab.database, lab.tenant, id)
        with lab.database.begin() as tx:  # the same checkpoints, for a job whose child refuses the newest
            tx.execute(sa.update(checkpoint).where(checkpoint.c.job_id == id).values(job_id=child))
            tx.execute(sa.text("UPDATE job SET checkpoint_done = :done WHERE id = :id"), {"done": done, "id": child})
        job = lab.work(child, means)
        assert (job.state, job.crashes, job.attempt) == ("queued", 0, 0)
        assert job.checkpoint is not None
        assert job.checkpoint["done"] < done
        assert lab.work(child, means).state == "succeeded"


def _spoil(lab: Lab, id: str, harm: sa.Update | sa.Delete, *, newest: int) -> tuple[int, int]:
    """Harm the bytes of the newest checkpoints of a job; the steps of the newest two."""
    with lab.database.begin() as tx:
        rows = tx.execute(sa.select(checkpoint).where(checkpoint.c.job_id == id).order_by(checkpoint.c.done.desc())).all()
        bad = sa.select(blob.c.id).where(blob.c.sha256.in_([row.blob for row in rows[:newest]]))
        tx.execute(harm.where(blob_chunk.c.blob_id.in_(bad)))
    return rows[0].done, rows[1].done


class Slow:
    """A store that takes its time."""

    def __init__(self, store: Blobs, seconds: float) -> None:
        self.store = store
        self.seconds = seconds

    def put(self, chunks: Iterable[bytes]) -> str:
        time.sleep(self.seconds)
        return self.store.put(chunks)

    def get(self, digest: str, *, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        return self.store.get(digest, start=start, stop=stop)


def test_what_is_slow_to_store_is_stored_less_often(lab: Lab) -> None:
    lab.submit()
    claim = life.claim(lab.database, worker="w", queues=["cpu"], lease=60)
    assert claim is not None
    settings = lab.settings(flush=0.01)
    lease = Lease(lab.database, claim, settings, stopping=threading.Event())
    folder, slow = JobFolder(lab.folder / "job"), 0.02
    recorder = Recorder(lab.database, claim, lease, blobs=Slow(lab.blobs, slow), folder=folder, settings=settings)

    def kept() -> list[float]:
        return [event.at for event in lab.events(claim.job.id, "checkpoint")]

    deadline, done = time.monotonic() + 60, 0
    while len(kept()) < 3 and time.monotonic() < deadline:
        done += 1
        path = folder.path / "checkpoint" / f"{done:08}.safetensors"
        path.write_bytes(str(done).encode())
        recorder.take(Checkpointed(0, done, done, f"checkpoint/{path.name}", hashlib.sha256(path.read_bytes()).hexdigest(), 1))
        recorder.take_in(tick=lambda: None)
        time.sleep(0.01)
    first, second, third = kept()
    assert second - first > 19 * slow  # never sooner than 20 times what storing took; it may well be later
    assert third - second > 19 * slow
    assert done > 20


def test_a_cache_makes_room_for_the_job_at_hand(tmp_path: Path) -> None:
    class Filling(Directory):
        """A disk on which only one more blob fits."""

        def put(self, chunks: Iterable[bytes]) -> str:
            if any(self.folder.glob("??/*")):
                raise OSError(min(NO_ROOM), "No space left on device")
            return super().put(chunks)

    store, cache, folder = Far(tmp_path / "store"), Filling(tmp_path / "cache"), JobFolder(tmp_path / "job")
    cache.put([b"of another job"])
    digest = store.put([b"teacher"])
    stage({"in/teacher": digest}, store, cache, folder, tick=lambda: None)
    assert (folder.path / "in" / "teacher").read_bytes() == b"teacher"
    with pytest.raises(NoRoom, match="the worker's disk is full"):
        keep(folder.path / "in" / "teacher", digest, cache, tick=lambda: None)


def test_room_is_what_was_asked_for_or_a_twentieth_of_the_disk(tmp_path: Path) -> None:
    disk = shutil.disk_usage(tmp_path)
    assert is_roomy(tmp_path, 0)
    assert is_roomy(tmp_path, 1 << 62) == (disk.free >= disk.total // 20)
