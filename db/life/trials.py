"""How a trial gets its number in a sweep: in order, each number once, and none after the sweep has ended."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from db.access import Tenant
from db.session import Database
from db.tables import sweep, trial


class NotTheNext(Exception):
    """The sweep has ended, or somebody else has made this trial: look at the sweep anew."""


def enter(tx: Connection, owner: Tenant, of: str, number: int, *, job: str | None = None, refusal: Mapping[str, Any] | None = None) -> None:
    """Make the job, or the refusal, trial `number` of the sweep; `NotTheNext` unless exactly that many are there and the sweep runs."""
    running = (sweep.c.id == of) & (sweep.c.tenant_id == owner.id) & (sweep.c.state == "running")
    # The lock on the sweep's row makes two who enter take turns, and an end of the sweep wait or be seen.
    if tx.execute(sa.select(sweep.c.id).where(running).with_for_update()).first() is None:
        raise NotTheNext(f"the sweep {of} does not run")
    there = sa.select(sa.func.count()).select_from(trial).where(trial.c.sweep_id == of)
    if tx.execute(there).scalar_one() != number:
        raise NotTheNext(f"trial {number} of the sweep {of} is not the next")
    tx.execute(sa.insert(trial).values(sweep_id=of, number=number, tenant_id=owner.id, job_id=job, refusal=refusal))


def refuse(db: Database, owner: Tenant, of: str, number: int, refusal: Mapping[str, Any]) -> None:
    """Keep why no job could be made of a trial; `NotTheNext` as for `enter`."""
    with db.begin() as tx:
        enter(tx, owner, of, number, refusal=refusal)
