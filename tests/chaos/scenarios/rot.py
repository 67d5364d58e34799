"""Bytes that go bad where they lie: S2."""

import random

import sqlalchemy as sa

from db import life
from db.tables import blob, blob_chunk, checkpoint
from tests.chaos.catalogue import Times, scenario
from tests.chaos.lab import Lab

WAYS = ("a flipped byte", "a short chunk", "a lost chunk")


@scenario("S2")
def a_checkpoint_goes_bad(lab: Lab, n: int, draw: random.Random, times: Times) -> None:
    """A paused job's last checkpoint is flipped, cut or gone: the job goes on from the one before, and ends as if nothing had been."""
    lab.have(1)
    for i in range(n):
        id = lab.train(pause=0.02)
        lab.progresses(id, beyond=draw.choice((10, 20)))
        life.pause(lab.database, lab.tenant, id)
        if lab.reaches(id, "paused", "succeeded").state == "succeeded":
            continue
        _spoil(lab, id, way := WAYS[i % len(WAYS)], draw)
        lab.log.write("rot", id, what=way)
        life.resume(lab.database, lab.tenant, id)
        with times.measure("a job with a bad checkpoint to its end"):
            lab.reaches(id, "succeeded")
        assert lab.events(id, "checkpoint_corrupt"), f"{id} did not notice {way}"


def _spoil(lab: Lab, id: str, way: str, draw: random.Random) -> None:
    kept = lab.job(id).checkpoint
    assert kept is not None
    with lab.database.begin() as tx:
        named = sa.select(blob.c.id).where(blob.c.tenant_id == lab.tenant.id, blob.c.sha256 == kept["blob"]).scalar_subquery()
        chunk = (blob_chunk.c.blob_id == named) & (blob_chunk.c.i == 0)
        data = bytearray(tx.execute(sa.select(blob_chunk.c.data).where(chunk)).scalar_one())
        data[draw.randrange(len(data))] ^= 1
        match way:
            case "a flipped byte":
                tx.execute(sa.update(blob_chunk).where(chunk).values(data=bytes(data)))
            case "a short chunk":
                tx.execute(sa.update(blob_chunk).where(chunk).values(data=bytes(data[:-1])))
            case _:
                tx.execute(sa.delete(blob_chunk).where(chunk))
        assert tx.execute(sa.select(sa.func.count()).select_from(checkpoint).where(checkpoint.c.job_id == id)).scalar_one() > 1
