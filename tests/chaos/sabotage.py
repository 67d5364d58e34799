"""The suite can fail: a worker and a child from which something was taken away. Nothing of this is in the service.

`python -m tests.chaos.sabotage unfenced` is a worker whose writes ask only for the job's id. `sabotage.py forgetful run DIR` and
`sabotage.py forgetful-engine run DIR` are children whose checkpoints lack the optimiser's state.
"""

import sqlite3
import sys
from pathlib import Path
from typing import Any

import sqlalchemy as sa

if __name__ == "__main__":  # a child is started in isolation, and does not find us
    sys.path.insert(0, str(Path(__file__).parents[2]))

from db.life.job import Claim, held_by
from db.session import Database
from db.tables import job

UNFENCED = (sys.executable, "-m", "tests.chaos.sabotage", "unfenced")
FORGETFUL = (sys.executable, "-I", __file__, "forgetful")
FORGETFUL_ENGINE = (sys.executable, "-I", __file__, "forgetful-engine")


def unfence() -> None:
    """Every write under a claim asks for the id alone, wherever that condition is used."""

    def held_by_anybody(claim: Claim) -> sa.ColumnElement[bool]:
        return job.c.id == claim.job.id

    fenced = held_by  # this module's own name is replaced on the way
    for module in list(sys.modules.values()):
        if getattr(module, "held_by", None) is fenced:
            module.held_by = held_by_anybody  # type: ignore[attr-defined]


def without_checks(database: Database) -> None:
    """Drop the constraints that refuse a lease on a job that does not run. SQLite cannot: there an unfenced worker ignores them."""
    if database.dialect == "postgresql":
        with database.begin() as tx:
            tx.execute(sa.text("ALTER TABLE job DROP CONSTRAINT ck_job_lease, DROP CONSTRAINT ck_job_owner"))


def without_second_line(database: Database) -> None:
    """Drop what refuses a second completion whatever the code does: the unique index and the trigger of terminal states."""
    with database.begin() as tx:
        tx.execute(sa.text("DROP INDEX one_completion"))
        tx.execute(sa.text("DROP TRIGGER job_has_ended" + (" ON job" if database.dialect == "postgresql" else "")))


def _ignore_checks(connection: Any, _record: Any) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA ignore_check_constraints=ON")


def _forget_momentum() -> None:
    from safetensors.numpy import load, save

    from tests.chaos import toy

    whole = toy.Training.freeze

    def freeze(training: toy.Training, ballast: int = 0) -> bytes:
        return bytes(save({name: array for name, array in load(whole(training, ballast)).items() if name != "momentum"}))

    toy.Training.freeze = freeze  # type: ignore[assignment, method-assign]
    toy.main()


def _forget_optimiser() -> None:
    from safetensors.torch import load, save

    from core.__main__ import main
    from core.bench import Bench

    whole = Bench.freeze

    def freeze(bench: Bench) -> bytes:
        return save({name: tensor for name, tensor in load(whole(bench)).items() if not name.startswith("optimiser/")})

    Bench.freeze = freeze  # type: ignore[assignment, method-assign]
    sys.exit(main())


def _work_unfenced() -> None:
    from worker.__main__ import main

    unfence()
    sa.event.listen(sa.Engine, "connect", _ignore_checks)
    main()


if __name__ == "__main__":
    {"unfenced": _work_unfenced, "forgetful": _forget_momentum, "forgetful-engine": _forget_optimiser}[sys.argv.pop(1)]()
