"""Everything that a database says of its jobs, read past the functions that wrote it, and what must hold of it at any moment."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from db.session import Database, clock
from db.states import TERMINAL
from db.tables import artifact, blob, blob_chunk, checkpoint, job, job_attempt, job_event


@dataclass(frozen=True, slots=True)
class Seen:
    """Rows by job. `attempts` says of each fence whether its attempt has ended; `checkpoints` are (done, digest), the oldest first;
    `named` are the (tenant, digest) that rows point at, `blobs` the bytes under each.
    """

    now: float
    jobs: Mapping[str, Mapping[str, Any]]
    events: Mapping[str, list[Any]]
    attempts: Mapping[str, dict[int, bool]]
    checkpoints: Mapping[str, list[tuple[int, str]]]
    named: set[tuple[str, str]]
    blobs: Mapping[tuple[str, str], bytes]


def see(db: Database) -> Seen:
    """All of it, in one transaction."""
    with db.read() as tx:
        now = tx.execute(sa.select(clock())).scalar_one()
        jobs = {row["id"]: dict(row) for row in tx.execute(sa.select(job)).mappings()}
        events: dict[str, list[Any]] = defaultdict(list)
        for row in tx.execute(sa.select(job_event).order_by(job_event.c.seq)):
            events[row.job_id].append(row)
        attempts: dict[str, dict[int, bool]] = defaultdict(dict)
        for row in tx.execute(sa.select(job_attempt)):
            attempts[row.job_id][row.fence] = row.ended_at is not None
        checkpoints: dict[str, list[tuple[int, str]]] = defaultdict(list)
        named = set()
        for row in tx.execute(sa.select(checkpoint).order_by(checkpoint.c.done)):
            checkpoints[row.job_id].append((row.done, row.blob))
            named.add((row.tenant_id, row.blob))
        named |= {(row.tenant_id, row.sha256) for row in tx.execute(sa.select(artifact.c.tenant_id, artifact.c.sha256))}
        blobs: dict[tuple[str, str], bytes] = defaultdict(bytes)
        chunks = sa.select(blob.c.tenant_id, blob.c.sha256, blob_chunk.c.data).join(blob_chunk, blob_chunk.c.blob_id == blob.c.id)
        for row in tx.execute(chunks.where(blob.c.sha256.is_not(None)).order_by(blob_chunk.c.i)):
            blobs[row.tenant_id, row.sha256] += row.data
    return Seen(now, jobs, events, attempts, checkpoints, named, blobs)


def keep_promises(seen: Seen, *, before: Mapping[str, Mapping[str, Any]], max_running: int) -> None:
    """What holds whatever was asked and whoever failed; `before` are the jobs as they were a step ago."""
    running = Counter(row["tenant_id"] for row in seen.jobs.values() if row["state"] == "running")
    assert all(count <= max_running for count in running.values()), "a tenant runs more jobs than it may"
    for id, row in seen.jobs.items():
        told = seen.events[id]
        kinds, fences = [one.kind for one in told], [one.fence for one in told]
        assert [one.seq for one in told] == list(range(1, row["event_seq"] + 1)), "the history has a gap"
        assert fences == sorted(fences), "written under an old fence"
        assert kinds.count("succeeded") == (row["state"] == "succeeded"), "completed, but not once"
        assert (row["lease_until"] is None) == (row["state"] != "running"), "a running job without a lease"
        assert [fence for fence, ended in seen.attempts[id].items() if not ended] in ([], [row["fence"]]), "an old attempt never ended"
        if was := before.get(id):
            assert was["fence"] <= row["fence"], "the fence went back"
            assert was["state"] not in TERMINAL or was["state"] == row["state"], "back from the end"
            if (was["checkpoint_done"] or 0) > (row["checkpoint_done"] or 0) and row["state"] not in TERMINAL:
                assert "checkpoint_corrupt" in kinds[was["event_seq"] :], "a checkpoint went back, and nobody says why"
    assert seen.named <= seen.blobs.keys(), "bytes that somebody needs are gone"
