"""A database and a model of it that go through the same steps, and are compared after each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis.stateful import RuleBasedStateMachine, invariant

from db import life
from db.access import Tenant, create_tenant
from db.blobs import Blobs
from db.session import Database, Unavailable
from db.tables import job, metadata, tenant
from tests.db.life import model
from tests.db.life.faults import Died, Fault, Faulty
from tests.db.life.model import Model
from tests.db.life.seen import keep_promises, see

_DRIFT = 200.0
"""More than an example really takes, less than what the model's times keep apart."""
_DURATIONS = {"seconds_limit", "seconds_left"}
_TIMES = {
    table: [column for column in table.c if isinstance(column.type, sa.Double) and column.name not in _DURATIONS]
    for table in metadata.sorted_tables
}


@dataclass(frozen=True, slots=True)
class Step:
    """One call of the store, and what the model says of it."""

    call: Callable[[Database], Any]
    expect: Callable[[Model], Any]


class Compared(RuleBasedStateMachine):
    """An example: it begins with two tenants and no job."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self.database = database
        self.faulty = Faulty(database)
        self.model = Model()
        self.bytes: dict[str, bytes] = {}
        self.before: Mapping[str, Any] = {}
        with database.begin() as tx:
            for table in reversed(metadata.sorted_tables):
                tx.execute(sa.delete(table))
        self.tenants = [create_tenant(database, name) for name in ("ours", "theirs")]
        with database.begin() as tx:
            tx.execute(sa.update(tenant).values(max_running=model.MAX_RUNNING))

    def call(self, step: Step, fault: Fault | None) -> Any:
        """Call the store, and call it again where the answer was lost, as a worker does; a dead one does not."""
        self.faulty.arm(fault)
        try:
            answer = step.call(self.faulty)
        except (Unavailable, Died) as broken:
            if self.faulty.commits:
                step.expect(self.model)
            if isinstance(broken, Died):
                return None
            answer = step.call(self.database)
        expected = step.expect(self.model)
        assert answer == expected, (answer, expected)
        return answer

    def newcomer(self) -> str:
        """The one job that the model does not know."""
        with self.database.read() as tx:
            (id,) = set(tx.execute(sa.select(job.c.id)).scalars()) - self.model.jobs.keys()
        return str(id)

    def put(self, claim: life.Claim, data: bytes, *, now: bool = True) -> str:
        """The digest of bytes that the owner of a claimed job has kept, now or before."""
        digest = sha256(data).hexdigest()
        self.bytes[digest] = data
        if now:
            assert Blobs(self.database, Tenant(claim.job.tenant)).put([data]) == digest
            self.model.put(claim.job.tenant, digest)
        return digest

    def go_on(self, seconds: float) -> None:
        """What the database's clock would show later: every time in it lies further back."""
        with self.database.begin() as tx:
            for table, columns in _TIMES.items():
                if columns:
                    tx.execute(sa.update(table).values({column: column - seconds for column in columns}))
        self.model.now += seconds

    @invariant()
    def as_the_model_says(self) -> None:
        seen = see(self.database)
        assert seen.jobs.keys() == self.model.jobs.keys()
        names = ("state", "desired", "cancel_mode", "cancel_keep", "fence", "attempt", "crashes", "code", "parent_id")
        for id, expected in self.model.jobs.items():
            row = seen.jobs[id]
            assert {name: row[name] for name in names} == {name: getattr(expected, name) for name in names}
            assert row["checkpoint_done"] == expected.done
            for name, due in (("lease_until", expected.lease), ("deadline", expected.deadline), ("run_after", expected.run_after)):
                assert _ahead(row[name], seen.now) == pytest.approx(_ahead(due, self.model.now), abs=_DRIFT), name
            assert [(one.kind, one.fence) for one in seen.events[id]] == expected.told
            assert seen.attempts[id] == expected.attempts
            assert seen.checkpoints[id] == [(one.done, one.blob) for one in expected.kept]
        assert seen.blobs == {place: self.bytes[place[1]] for place in self.model.blobs}
        keep_promises(seen, before=self.before, max_running=model.MAX_RUNNING)
        self.before = seen.jobs


def _ahead(then: float | None, now: float) -> float | None:
    return None if then is None else then - now
