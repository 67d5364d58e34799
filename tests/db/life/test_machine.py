"""The life of jobs, driven at random on both databases and compared with a model of it after every step.

Every day a few examples, always the same ones; RETORT_MACHINE_EXAMPLES asks for so many that nobody has seen.
"""

import os
from functools import partial

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from db.session import Database
from tests.db.life.machine import Machine

_ASKED = int(os.environ.get("RETORT_MACHINE_EXAMPLES", "0"))
_EXAMPLES = 10
"""At once: after its tenth Hypothesis begins to vary the examples that it had, and five of six are nearly the same."""
_SETTINGS = settings(
    max_examples=_EXAMPLES,
    derandomize=not _ASKED,
    stateful_step_count=60,
    deadline=None,
    database=None,
    print_blob=True,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


def test_the_rows_are_what_the_table_of_transitions_says_whoever_fails_and_when(database: Database) -> None:
    for salt in range((_ASKED or 60) // _EXAMPLES):
        run_state_machine_as_test(partial(Machine, database, salt), settings=_SETTINGS)  # type: ignore[arg-type]  # a factory is enough
