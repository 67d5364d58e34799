"""What nothing needs any more, taken away later and in batches: expired uploads, checkpoints of jobs that ended, blobs that no row names.

Each step is a short transaction of its own that asks again whether it may: a crash between two loses nothing, and the next round goes on.
"""

import sqlalchemy as sa
from sqlalchemy import Connection

from db.access import Tenant
from db.blobs import discard, forget, named
from db.life.run import forget_checkpoints
from db.life.submission import lock_tenant
from db.session import Database, clock
from db.states import TERMINAL
from db.tables import blob, checkpoint, job, job_event, upload

_AT_ONCE = 200


def expire_uploads(db: Database, *, most: int = _AT_ONCE) -> int:
    """Forget uploads past their `expires_at`, whether their bytes came or not; how many. What was made of them stays, what came of
    unfinished ones goes."""
    over = sa.select(upload.c.id).where(upload.c.expires_at < clock()).order_by(upload.c.expires_at).limit(most)
    with db.begin() as tx:
        gone = tx.execute(sa.delete(upload).where(upload.c.id.in_(over)).returning(upload.c.blob_id)).scalars().all()
    for id in gone:
        if id is not None:
            discard(db, id)
    return len(gone)


def forget_finished(db: Database, *, older: float, most: int = _AT_ONCE) -> int:
    """Forget the checkpoints of jobs that ended more than `older` seconds ago; how many jobs. A job that was started from one has a
    checkpoint of its own with the same bytes, which stay for it."""
    last = (job_event.c.job_id == job.c.id) & (job_event.c.seq == job.c.event_seq)
    over = sa.exists().where(last, job_event.c.at < clock() - older)
    ended = job.c.state.in_(TERMINAL) & sa.exists().where(checkpoint.c.job_id == job.c.id) & over
    with db.read() as tx:
        found = tx.execute(sa.select(job.c.id, job.c.tenant_id).where(ended).order_by(job.c.id).limit(most)).all()
    for row in found:
        with db.begin() as tx:
            lock_tenant(tx, Tenant(row.tenant_id))  # nobody starts a retry from what goes now
            tx.execute(sa.update(job).where(job.c.id == row.id).values(checkpoint_done=None))
            unused = forget_checkpoints(tx, checkpoint.c.job_id == row.id)
        for id in unused:
            discard(db, id)
    return len(found)


def collect(db: Database, *, older: float, most: int = _AT_ONCE) -> int:
    """Take away blobs that nothing names and nobody touched for `older` seconds, at most `most`; how many.

    What a job that has not ended will be given is named by its inputs. A submit touches what it names, so that whoever comes between our
    look and our write is seen by the age.
    """
    gone, after = 0, ""
    while gone < most:
        with db.read() as tx:
            old = (blob.c.sha256.is_not(None)) & (blob.c.touched_at <= clock() - older) & (blob.c.id > after) & ~named()
            columns = (blob.c.id, blob.c.tenant_id, blob.c.sha256)
            found = tx.execute(sa.select(*columns).where(old).order_by(blob.c.id).limit(min(_AT_ONCE, most))).all()
            needed = _needed(tx, {row.tenant_id for row in found})
        if not found:
            break
        after = found[-1].id
        for row in found:
            if (row.tenant_id, row.sha256) in needed or gone == most:
                continue
            with db.begin() as tx:
                unused = forget(tx, row.tenant_id, row.sha256, older=older)
            for id in unused:
                discard(db, id)
            gone += len(unused)
    return gone


def sweep(db: Database, *, older: float, most: int = _AT_ONCE) -> int:
    """Take apart what was never finished, or never taken apart to the end, and was not touched for `older` seconds; how many blobs.

    The blob of a pending upload waits for its bytes for as long as the upload does.
    """
    awaited = sa.exists().where(upload.c.blob_id == blob.c.id, upload.c.status == "pending")
    with db.read() as tx:
        left = sa.select(blob.c.id).where(blob.c.sha256.is_(None), blob.c.touched_at < clock() - older, ~awaited).limit(most)
        ids = tx.execute(left).scalars().all()
    for id in ids:
        discard(db, id)
    return len(ids)


def _needed(tx: Connection, tenants: set[str]) -> set[tuple[str, str]]:
    """(tenant, digest) of all that the jobs of these tenants that have not ended will be given."""
    waiting = job.c.tenant_id.in_(tenants) & job.c.state.not_in(TERMINAL)
    rows = tx.execute(sa.select(job.c.tenant_id, job.c.inputs["blobs"]).where(waiting)).all()
    return {(tenant, digest) for tenant, blobs in rows for digest in (blobs or {}).values()}
