"""The database restarts, stays away, loses a connection, or loses just the answer to a COMMIT: D1, D2, D3, D4. PostgreSQL only."""

import random
import time
from typing import Any

import httpx
import psycopg

from tests.chaos import toy
from tests.chaos.api import Api, api
from tests.chaos.catalogue import Times, scenario
from tests.chaos.lab import TIMES, Lab, until
from tests.chaos.proxy import proxied

COMMITS = {
    "submit": b"INSERT INTO idempotency_key",
    "claim": b"INSERT INTO job_attempt",
    "checkpoint": b"INSERT INTO checkpoint",
    "complete": b"succeeded",
}
"""What stands in the transaction whose COMMIT is struck."""


@scenario("D1", dialects=("postgresql",))
def postgres_restarts(lab: Lab, n: int, draw: random.Random, times: Times) -> None:
    """Immediate restart of PostgreSQL while a job runs and others are submitted; the child and its fence are the same afterwards."""
    with api(lab) as door:
        lab.have(2)
        for _ in range(n):
            id = lab.train(pause=0.1)
            fence, pid = lab.runs(id), lab.pid(id)
            time.sleep(draw.uniform(0, 0.5))
            body = door.body(f"d1-{lab.number('key')}")
            with times.measure("a restart of the database, with a submit meanwhile"):
                _away(lab)
                assert not _submit(door, body), "a job was accepted without a database"
                time.sleep(draw.uniform(0, 1))
                _back(lab)
                until(lambda body=body: _submit(door, body))  # type: ignore[misc]
            job = lab.reaches(id, "succeeded")
            assert job.fence == fence, f"the job {id} was claimed anew, though its child {pid} was well"


@scenario("D2", dialects=("postgresql",))
def a_commit_is_ambiguous(lab: Lab, n: int, draw: random.Random, times: Times) -> None:
    """The answer to the COMMIT of a submit, a claim, a checkpoint or a completion is lost, or the COMMIT itself."""
    with proxied(lab.database_url) as proxy, api(lab, database_url=proxy.url(lab.database_url)) as door:
        lab.start_worker(database_url=proxy.url(lab.database_url))
        for i in range(n):
            place = list(COMMITS)[i % len(COMMITS)]
            executed = draw.random() < 0.7
            before = proxy.struck
            lab.log.write("ambiguous commit", place, executed=executed)
            proxy.strike(COMMITS[place], executed=executed)
            with times.measure(f"a job with an ambiguous {place}"):
                body = door.body(f"d2-{lab.number('key')}")
                id = until(lambda body=body: _submit(door, body))  # type: ignore[misc]
                lab.reaches(id, "succeeded")
            until(lambda before=before: proxy.struck > before)  # type: ignore[misc]


@scenario("D3", dialects=("postgresql",))
def postgres_is_away_for_three_leases(lab: Lab, n: int, draw: random.Random, times: Times) -> None:
    """PostgreSQL is down for three leases: afterwards no job that is well is taken from its worker."""
    lab.have(2)
    for _ in range(n):
        ids = [lab.train(steps=200, pause=0.05) for _ in range(2)]
        fences = [lab.runs(id) for id in ids]
        time.sleep(draw.uniform(0, 0.5))
        _away(lab)
        time.sleep(3 * TIMES["lease"])
        _back(lab)
        with times.measure("the database's return to the end of the jobs"):
            ended = [lab.reaches(id, "succeeded").fence for id in ids]
        assert ended == fences, f"jobs that were well were claimed anew: fences {fences} became {ended}"


@scenario("D4", dialects=("postgresql",))
def a_connection_is_terminated(lab: Lab, n: int, draw: random.Random, times: Times) -> None:
    """pg_terminate_backend of a connection of the service, at random."""
    lab.have(2)
    ids = [lab.train(pause=0.02) for _ in range(2)]
    with psycopg.connect(lab.database_url, autocommit=True) as connection:
        while lab.log.counts["terminate backend"] < n:
            time.sleep(draw.uniform(0, 0.2))
            backends = connection.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'retort' ORDER BY pid").fetchall()
            if not backends:
                continue
            pid = draw.choice(backends)[0]
            connection.execute("SELECT pg_terminate_backend(%s)", [pid])
            lab.log.write("terminate backend", str(pid))
            if all(lab.job(id).state == "succeeded" for id in ids[-2:]):
                ids += [lab.train(pause=0.02) for _ in range(2)]


def _away(lab: Lab) -> None:
    assert lab.postgres
    lab.log.write("restart", "postgres")
    lab.postgres.kill()


def _back(lab: Lab) -> None:
    assert lab.postgres
    lab.postgres.start()


def _submit(door: Api, body: dict[str, Any]) -> str | None:
    """Send a job once with its key: its id, or None where the API says that the database is away, and when to ask again."""
    answer = door.http.post("/v1/jobs", json=body, headers={"Idempotency-Key": body["name"]})
    if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        assert "Retry-After" in answer.headers, "a 503 without Retry-After"
        return None
    assert answer.status_code == httpx.codes.CREATED, f"{answer.status_code}: {answer.text}"
    id: str = answer.json()["id"]
    return door.lab.accept(id, steps=toy.STEPS, sha256=toy.reference(body["seed"], toy.STEPS), key=body["name"])
