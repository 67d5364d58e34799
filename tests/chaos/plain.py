"""The comparison's application: the usual Celery service, whose truth is the message. Its worker is started with `celery -A`.

Late acknowledgement, as its documentation advises for work that must not be lost; a plain table says what was completed, a row each time.
"""

import json
import os
import sqlite3
import time
from contextlib import closing
from hashlib import sha256
from pathlib import Path

from celery import Celery

from core.shim import die_with_parent
from tests.chaos.toy import Training

SCHEMA = """
CREATE TABLE started (job TEXT NOT NULL, pid INTEGER NOT NULL);
CREATE TABLE completed (job TEXT NOT NULL, digest TEXT NOT NULL);
"""


def application(broker_url: str, *, visibility: float, reject: bool) -> Celery:
    """With everything that it does not say at Celery's defaults. Redelivery is looked for as often as the `visibility` timeout asks for."""
    app = Celery("plain", broker=broker_url, set_as_current=False)
    app.conf.update(
        task_acks_late=True,
        task_reject_on_worker_lost=reject,
        task_ignore_result=True,
        broker_connection_retry_on_startup=True,
        broker_transport_options={"visibility_timeout": visibility, "unacked_restore_interval": 0.5, "unacked_restore_throttle": 1},
    )
    return app


def connect(file: Path) -> sqlite3.Connection:
    """The plain table; each statement is a transaction."""
    return sqlite3.connect(file, timeout=60, isolation_level=None)


def work(job: str, seed: int, steps: int, pause: float) -> None:
    """The same training as the laboratory's toy, in the process of the pool, and its digest in the table."""
    with closing(connect(Path(os.environ["PLAIN_TABLE"]))) as table:
        table.execute("INSERT INTO started VALUES (?, ?)", (job, os.getpid()))
        training = Training(seed)
        for _ in range(steps):
            training.step()
            time.sleep(pause)
        table.execute("INSERT INTO completed VALUES (?, ?)", (job, sha256(training.student()).hexdigest()))


if "PLAIN" in os.environ:  # this is a worker
    die_with_parent(int(os.environ["PLAIN_PARENT"]))
    app = application(**json.loads(os.environ["PLAIN"]))
    app.task(name="plain.work")(work)
