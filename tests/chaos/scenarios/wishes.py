"""What users do at any moment: C1 cancel, C2 pause and resume, T2 one tenant's flood."""

import random
import time

import sqlalchemy as sa

from db import life
from db.tables import job, job_attempt
from tests.chaos.catalogue import Times, batches, scenario
from tests.chaos.lab import Lab, until
from worker.settings import Settings

UNSCALED = {
    name: Settings.model_fields[name].default for name in ("lease", "renew", "wish", "flush", "grace", "cancel_grace", "poll", "reconcile")
}
"""The times of the service as it is shipped: what is promised in seconds is measured with them."""
SLOTS = 3


@scenario("C1")
def a_job_is_cancelled(lab: Lab, n: int, draw: random.Random, times: Times) -> None:
    """Cancel at a random moment, by the times of the service as it is shipped: cancelled, or it had succeeded before."""
    lab.clear()
    lab.start_worker(slots=SLOTS, **UNSCALED)
    for batch in batches(n, SLOTS):
        ids = {lab.train(pause=0.03, ends=frozenset({"cancelled", "succeeded"})): draw.uniform(0, 3) for _ in range(batch)}
        lab.ring()
        began, asked, over = time.monotonic(), dict[str, float](), set[str]()

        def look(ids: dict[str, float], began: float, asked: dict[str, float], over: set[str]) -> bool:
            for id, after in ids.items():
                if id not in asked and time.monotonic() >= began + after:
                    lab.log.write("cancel", id)
                    asked[id] = time.monotonic()
                    life.cancel(lab.database, lab.tenant, id)
                if id in asked and id not in over and lab.job(id).state in ("cancelled", "succeeded"):
                    over.add(id)
                    if lab.job(id).state == "cancelled":
                        times.add("a cancel, by unscaled times", time.monotonic() - asked[id])
            return len(over) == len(ids)

        until(lambda state=(ids, began, asked, over): look(*state))  # type: ignore[misc]


@scenario("C2")
def a_job_is_paused_and_resumed(lab: Lab, n: int, draw: random.Random, times: Times) -> None:
    """Pause and resume, again and again until the job is done."""
    lab.clear()
    lab.start_worker(slots=SLOTS)
    for batch in batches(n, SLOTS):
        ids = [lab.train(pause=0.03) for _ in range(batch)]
        for _ in range(10):
            time.sleep(draw.uniform(0, 0.6))
            paused = [id for id in ids if life.pause(lab.database, lab.tenant, id)]
            for id in paused:
                lab.log.write("pause", id)
                with times.measure("a pause"):
                    lab.reaches(id, "paused", "succeeded")
                life.resume(lab.database, lab.tenant, id)
            if not paused:
                break


@scenario("T2")
def a_tenant_floods_the_queue(lab: Lab, n: int, draw: random.Random, times: Times) -> None:
    """One tenant queues five jobs for each one of another: none of those waits for more than one job of the one slot."""
    lab.clear()
    for _ in range(4 * n):
        lab.train(steps=5, every=5)
    lab.log.write("flood", lab.tenant.id, n=5 * n)
    lab.start_worker(slots=1)
    late = []
    for _ in range(n):
        lab.train(steps=5, every=5)
        time.sleep(draw.uniform(0, 0.3))
        late.append(lab.train(tenant=lab.stranger, steps=5, every=5))
        with times.measure("one job behind a flood"):
            until(lambda id=late[-1]: lab.job(id).state == "succeeded")  # type: ignore[misc]
    with lab.database.read() as tx:
        for id in late:
            asked = tx.execute(sa.select(job.c.created_at).where(job.c.id == id)).scalar_one()
            began = tx.execute(sa.select(sa.func.min(job_attempt.c.started_at)).where(job_attempt.c.job_id == id)).scalar_one()
            between = (job_attempt.c.started_at > asked) & (job_attempt.c.started_at < began) & (job_attempt.c.job_id != id)
            before = tx.execute(sa.select(sa.func.count()).select_from(job_attempt).where(between)).scalar_one()
            assert before <= 1, f"{before} jobs of the flood began before {id}, whose turn it was"
