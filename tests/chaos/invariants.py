"""The twelve things that must be true of every job once the faults have stopped, read from the rows themselves.

I1 nothing accepted is lost · I2 completed exactly once · I3 the student of an uninterrupted run · I4 no write of a lost claim ·
I5 checkpoints only grow, every byte is what its name says · I6 nothing left over · I7 no claim without a living lease ·
I8 the curve has each step · I9 one key, one job · I10 nothing of another tenant · I11 events without a gap · I12 attempts in budget
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Table

from db.life.end import MAX_ATTEMPTS
from db.session import clock
from db.tables import artifact, asset, blob, blob_chunk, checkpoint, idempotency_key, job, job_attempt, job_event, upload
from tests.chaos.lab import TIMES, Accepted, Lab

Row = sa.RowMapping


@dataclass(frozen=True, slots=True)
class Violation:
    """What is not as it must be."""

    invariant: str
    job: str
    what: str


@dataclass(frozen=True, slots=True)
class Rows:
    """Everything about one accepted job; `row` is None where there is none. Events are in the order of their numbers."""

    accepted: Accepted
    row: Row | None
    events: list[Row]
    attempts: list[Row]
    checkpoints: list[Row]
    artifacts: list[Row]


def violations(lab: Lab) -> list[Violation]:
    """All of them, over every accepted job and over all that is kept."""
    with lab.database.read() as tx:
        everything = [_rows(tx, accepted) for accepted in lab.accepted.values()]
        found = [violation for rows in everything for check in OF_A_JOB for violation in check(rows)]
        found += [violation for check in OF_ALL for violation in check(tx, everything)]
    return [*found, *nothing_left_over(lab)]


def not_lost(rows: Rows) -> Iterator[Violation]:
    """I1: it exists, and has ended as it may end."""
    if rows.row is None:
        yield Violation("I1", rows.accepted.id, "there is no such job")
    elif rows.row["state"] not in rows.accepted.ends:
        yield Violation("I1", rows.accepted.id, f"{rows.row['state']} ({rows.row['code']}), not one of {sorted(rows.accepted.ends)}")


def completed_once(rows: Rows) -> Iterator[Violation]:
    """I2: exactly one completion of what succeeded, and none of anything else."""
    told = len(_of(rows, "succeeded"))
    wanted = 1 if rows.row and rows.row["state"] == "succeeded" else 0
    if told != wanted:
        yield Violation("I2", rows.accepted.id, f"{told} completions, {wanted} wanted")


def right_student(rows: Rows) -> Iterator[Violation]:
    """I3: the student is, to the byte, the one of a training that nothing interrupted."""
    if rows.row and rows.row["state"] == "succeeded" and rows.accepted.sha256:
        kept = [each["sha256"] for each in rows.artifacts if each["name"] == "model.safetensors"]
        if kept != [rows.accepted.sha256]:
            yield Violation("I3", rows.accepted.id, f"the students {kept}, wanted one {rows.accepted.sha256}")


def fenced(rows: Rows) -> Iterator[Violation]:
    """I4: fences never fall in the history, and none is above the job's own."""
    fences = [event["fence"] for event in rows.events]
    if fences != sorted(fences):
        yield Violation("I4", rows.accepted.id, f"the fences of its events: {fences}")
    if rows.row and fences and fences[-1] > rows.row["fence"]:
        yield Violation("I4", rows.accepted.id, f"an event of fence {fences[-1]}, above {rows.row['fence']}")


def checkpoints_grow(rows: Rows) -> Iterator[Violation]:
    """I5, of a job: each checkpoint that was told is newer than the one it went on from, and the newest is the one it would resume from."""
    newest = -1
    for event in rows.events:
        if event["kind"] == "checkpoint_corrupt":
            newest = -1 if event["data"]["resumes_from"] is None else event["data"]["resumes_from"]
        elif event["kind"] == "checkpoint":
            if event["data"]["done"] <= newest:
                yield Violation("I5", rows.accepted.id, f"a checkpoint at {event['data']['done']} after one at {newest}")
            newest = event["data"]["done"]
    kept = [each["done"] for each in rows.checkpoints]
    if rows.row and rows.row["checkpoint_done"] is not None and rows.row["checkpoint_done"] not in kept:
        yield Violation("I5", rows.accepted.id, f"it would resume at {rows.row['checkpoint_done']}, and has {kept}")


def whole_curve(rows: Rows) -> Iterator[Violation]:
    """I8: taking each step under its highest fence, the curve of what succeeded has the steps 1 to n."""
    if rows.row and rows.row["state"] == "succeeded" and rows.accepted.steps is not None:
        seen = {done for event in _of(rows, "metrics") for done in event["data"]["columns"]["done"]}
        if seen != set(range(1, rows.accepted.steps + 1)):
            missing = sorted(set(range(1, rows.accepted.steps + 1)) - seen)
            yield Violation("I8", rows.accepted.id, f"the curve lacks {missing} and has {len(seen)} steps")


def events_without_gap(rows: Rows) -> Iterator[Violation]:
    """I11: numbered 1 to n, and the job knows n."""
    numbers = [event["seq"] for event in rows.events]
    if rows.row and numbers != list(range(1, rows.row["event_seq"] + 1)):
        yield Violation("I11", rows.accepted.id, f"events {numbers}, the job says {rows.row['event_seq']}")


def within_budget(rows: Rows) -> Iterator[Violation]:
    """I12: no more attempts and crashes than are allowed, and none of a job at rest is still open."""
    if rows.row is None:
        return
    most: int = TIMES["max_crashes"]
    if not 0 <= rows.row["attempt"] <= min(MAX_ATTEMPTS, len(rows.attempts)):
        yield Violation("I12", rows.accepted.id, f"attempt {rows.row['attempt']} of {len(rows.attempts)} that were begun")
    if not 0 <= rows.row["crashes"] <= most:
        yield Violation("I12", rows.accepted.id, f"{rows.row['crashes']} crashes, at most {most}")
    still = [each["fence"] for each in rows.attempts if each["ended_at"] is None]
    if still and rows.row["state"] not in ("running", "queued"):
        yield Violation("I12", rows.accepted.id, f"the attempts {still} of a job at rest have not ended")


def bytes_are_right(tx: Connection, _: Iterable[Rows]) -> Iterator[Violation]:
    """I5, of all bytes: every blob with a name has the bytes that its name says."""
    for row in tx.execute(sa.select(blob).where(blob.c.sha256.is_not(None))).mappings().all():
        hasher, size = sha256(), 0
        chunks = sa.select(blob_chunk.c.data).where(blob_chunk.c.blob_id == row["id"]).order_by(blob_chunk.c.i)
        for data in tx.execute(chunks).scalars():
            hasher.update(data)
            size += len(data)
        if (hasher.hexdigest(), size) != (row["sha256"], row["size"]):
            yield Violation(
                "I5", "", f"the blob {row['id']} has {size} bytes of {hasher.hexdigest()}, it says {row['size']} of {row['sha256']}"
            )


def nothing_half_visible(tx: Connection, _: Iterable[Rows]) -> Iterator[Violation]:
    """I6, of bytes: what an upload, an asset, a checkpoint or an artifact names is there, whole."""
    for table, name in ((upload, "sha256"), (asset, "blob"), (checkpoint, "blob"), (artifact, "sha256")):
        named = sa.and_(table.c[name].is_not(None), upload.c.status == "completed" if table is upload else sa.true())
        there = sa.exists().where(blob.c.tenant_id == table.c.tenant_id, blob.c.sha256 == table.c[name])
        for row in tx.execute(sa.select(table).where(named, ~there)).mappings():
            yield Violation("I6", "", f"{table.name} {dict(row)} names bytes that are not there")


def leases_live(tx: Connection, _: Iterable[Rows]) -> Iterator[Violation]:
    """I7: no job runs whose lease has been over for longer than a reaper needs to see it, ten times over."""
    allowed = 10 * (TIMES["lease"] + TIMES["reap"])
    over = sa.select(job.c.id, job.c.lease_until).where(job.c.state == "running", job.c.lease_until < clock() - allowed)
    for row in tx.execute(over).mappings():
        yield Violation("I7", row["id"], f"it runs with a lease that was over at {row['lease_until']}")


def one_key_one_job(tx: Connection, everything: Iterable[Rows]) -> Iterator[Violation]:
    """I9: a request that was sent again and again with one key made one job, and the key knows it."""
    for rows in everything:
        if (key := rows.accepted.key) is None:
            continue
        twins = tx.execute(sa.select(job.c.id).where(job.c.name == key)).scalars().all()
        known = tx.execute(sa.select(idempotency_key.c.job_id).where(idempotency_key.c.key == key)).scalars().all()
        if not list(twins) == list(known) == [rows.accepted.id]:
            yield Violation("I9", rows.accepted.id, f"the request {key} made the jobs {twins}, and its key knows {known}")


def nothing_of_others(tx: Connection, everything: Iterable[Rows]) -> Iterator[Violation]:
    """I10: a job, and all that it names, belongs to the tenant that submitted it."""
    for rows in everything:
        owners = {each["tenant_id"] for each in [*([rows.row] if rows.row else []), *rows.checkpoints, *rows.artifacts]}
        if owners - {rows.accepted.tenant}:
            yield Violation("I10", rows.accepted.id, f"it is of {rows.accepted.tenant}, its rows are of {sorted(owners)}")
    pairs: tuple[tuple[Table, str], ...] = ((checkpoint, "job_id"), (artifact, "job_id"), (asset, "job_id"))
    for table, name in pairs:
        mixed = sa.select(job.c.id).join(table, table.c[name] == job.c.id).where(table.c.tenant_id != job.c.tenant_id)
        for id in tx.execute(mixed).scalars():
            yield Violation("I10", id, f"a row of {table.name} is of another tenant")


def nothing_left_over(lab: Lab) -> Iterator[Violation]:
    """I6, of processes: none works in a job folder once every job is at rest."""
    for pid in lab.strays():
        yield Violation("I6", "", f"the process {pid} still works in a job folder")


OF_A_JOB: tuple[Callable[[Rows], Iterator[Violation]], ...] = (
    not_lost, completed_once, right_student, fenced, checkpoints_grow, whole_curve, events_without_gap, within_budget,
)  # fmt: skip
OF_ALL: tuple[Callable[[Connection, Iterable[Rows]], Iterator[Violation]], ...] = (
    bytes_are_right, nothing_half_visible, leases_live, one_key_one_job, nothing_of_others,
)  # fmt: skip


def counted(found: Iterable[Violation]) -> dict[str, int]:
    """How many of each invariant."""
    return dict(sorted(Counter(each.invariant for each in found).items()))


def _rows(tx: Connection, accepted: Accepted) -> Rows:
    def of(table: Table, *order: sa.ColumnElement[Any]) -> list[Row]:
        return list(tx.execute(sa.select(table).where(table.c.job_id == accepted.id).order_by(*order)).mappings())

    row = tx.execute(sa.select(job).where(job.c.id == accepted.id)).mappings().one_or_none()
    return Rows(
        accepted, row, of(job_event, job_event.c.seq), of(job_attempt, job_attempt.c.fence), of(checkpoint, checkpoint.c.done),
        of(artifact, artifact.c.name),
    )  # fmt: skip


def _of(rows: Rows, kind: str) -> list[Row]:
    return [event for event in rows.events if event["kind"] == kind]
