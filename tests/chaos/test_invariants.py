"""Each invariant is found broken where its rows are, and none where a job had a good life."""

import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from tests.chaos.invariants import counted, violations
from tests.chaos.lab import Lab, open_lab, until

pytestmark = pytest.mark.servers

BROKEN = [
    ("I1", "UPDATE job SET state = 'failed', code = 'diverged'"),
    ("I1", "DELETE FROM job"),
    ("I2", "DELETE FROM job_event WHERE kind = 'succeeded'"),
    ("I2", "INSERT INTO job_event SELECT job_id, seq + 100, fence, kind, at, data FROM job_event WHERE kind = 'succeeded'"),
    ("I3", "UPDATE artifact SET sha256 = (SELECT blob FROM checkpoint)"),
    ("I4", "UPDATE job_event SET fence = 2 WHERE seq = 2"),
    ("I4", "UPDATE job_event SET fence = 2 WHERE kind = 'succeeded'"),
    ("I5", "UPDATE blob_chunk SET data = zeroblob(length(data))"),
    ("I5", "DELETE FROM blob_chunk"),
    ("I5", "UPDATE job SET checkpoint_done = 7"),
    ("I5", """UPDATE job_event SET data = '{"done": 5}' WHERE kind = 'checkpoint'"""),
    ("I6", "DELETE FROM blob"),
    ("I7", "UPDATE job SET state = 'running', lease_until = 1.0"),
    ("I8", "DELETE FROM job_event WHERE kind = 'metrics'"),
    ("I10", "UPDATE artifact SET tenant_id = (SELECT id FROM tenant WHERE name = 'stranger')"),
    ("I10", "UPDATE job SET tenant_id = (SELECT id FROM tenant WHERE name = 'stranger')"),
    ("I11", "DELETE FROM job_event WHERE seq = 1"),
    ("I11", "UPDATE job SET event_seq = event_seq + 1"),
    ("I12", "UPDATE job SET attempt = 2"),
    ("I12", "UPDATE job SET crashes = 99"),
    ("I12", "UPDATE job_attempt SET ended_at = NULL"),
]


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A laboratory in which one job had a good life."""
    with open_lab(tmp_path_factory.mktemp("lived"), "sqlite", embedded=True) as lab:
        lab.have(1)
        lab.reaches(lab.train(steps=20), "succeeded")
        until(lambda: not lab.strays())
        lab.clear()
        yield lab


@pytest.fixture
def rows(lived: Lab) -> Iterator[sqlite3.Connection]:
    """Its rows, to be changed past every constraint; put back afterwards."""
    path = lived.database_url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, isolation_level=None)) as file, closing(sqlite3.connect(":memory:")) as kept:
        file.backup(kept)
        file.execute("PRAGMA ignore_check_constraints = ON")
        file.execute("DROP TRIGGER job_has_ended")
        file.execute("DROP INDEX one_completion")
        yield file
        kept.backup(file)


def test_a_good_life_breaks_nothing(lived: Lab) -> None:
    assert violations(lived) == []
    assert len(lived.accepted) == 1


@pytest.mark.parametrize(("invariant", "statement"), BROKEN)
def test_what_the_rows_must_not_say_is_found(lived: Lab, rows: sqlite3.Connection, invariant: str, statement: str) -> None:
    assert rows.execute(statement).rowcount > 0
    assert invariant in counted(violations(lived))


def test_a_request_that_made_no_job_or_two_is_found(lived: Lab, rows: sqlite3.Connection) -> None:
    ((id, accepted),) = lived.accepted.items()
    lived.accepted[id] = replace(accepted, key="once")
    try:
        assert "I9" in counted(violations(lived))
        rows.execute("UPDATE job SET name = 'once'")
        rows.execute("INSERT INTO idempotency_key SELECT tenant_id, 'once', 'f', id, 0.0 FROM job")
        assert violations(lived) == []
        rows.execute("INSERT INTO idempotency_key SELECT id, 'once', 'f', 'job_other', 0.0 FROM tenant WHERE name = 'stranger'")
        assert "I9" in counted(violations(lived))
    finally:
        lived.accepted[id] = accepted


def test_a_process_that_is_left_in_a_job_folder_is_found(lived: Lab) -> None:
    folder = lived.folder / "worker" / "jobs" / "left"
    folder.mkdir(parents=True)
    with subprocess.Popen(["sleep", "600"], cwd=folder) as stray:
        try:
            until(lambda: counted(violations(lived)) == {"I6": 1})
        finally:
            stray.kill()
