"""The database restarts, stays away, loses a connection, or loses just the answer to a COMMIT: D1, D2, D3, D4. PostgreSQL only."""

import random
import time

import psycopg

from tests.chaos.catalogue import Times, scenario
from tests.chaos.lab import TIMES, Lab, until
from tests.chaos.proxy import proxied

COMMITS = {"claim": b"INSERT INTO job_attempt", "checkpoint": b"INSERT INTO checkpoint", "complete": b"succeeded"}
"""What stands in the transaction whose COMMIT is struck."""


@scenario("D1", dialects=("postgresql",))
def postgres_restarts(lab: Lab, n: int, draw: random.Random, times: Times) -> None:
    """Immediate restart of PostgreSQL while a job runs; its child and its fence are the same afterwards."""
    lab.have(2)
    for _ in range(n):
        id = lab.train(pause=0.1)
        fence, pid = lab.runs(id), lab.pid(id)
        time.sleep(draw.uniform(0, 0.5))
        with times.measure("a restart of the database"):
            _restart(lab, away=draw.uniform(0, 1))
        job = lab.reaches(id, "succeeded")
        assert job.fence == fence, f"job {id} was claimed anew, though its child {pid} was well"


@scenario("D2", dialects=("postgresql",))
def a_commit_is_ambiguous(lab: Lab, n: int, draw: random.Random, times: Times) -> None:
    """The answer to the COMMIT of a claim, a checkpoint or a completion is lost, or the COMMIT itself."""
    for each in lab.healthy:
        lab.end(each)
    with proxied(lab.database_url) as proxy:
        worker = lab.start_worker(database_url=proxy.url(lab.database_url))
        for i in range(n):
            place = list(COMMITS)[i % len(COMMITS)]
            executed = draw.random() < 0.7
            before = proxy.struck
            proxy.strike(COMMITS[place], executed=executed)
            id = lab.train()
            with times.measure(f"a job with an ambiguous {place}"):
                lab.reaches(id, "succeeded")
            until(lambda before=before: proxy.struck > before)  # type: ignore[misc]
            lab.log.write("ambiguous commit", worker.name, place=place, executed=executed)


@scenario("D3", dialects=("postgresql",))
def postgres_is_away_for_three_leases(lab: Lab, n: int, draw: random.Random, times: Times) -> None:
    """PostgreSQL is down for three leases: afterwards no job that is well is taken from its worker."""
    lab.have(2)
    for _ in range(n):
        ids = [lab.train(steps=200, pause=0.05) for _ in range(2)]
        fences = [lab.runs(id) for id in ids]
        time.sleep(draw.uniform(0, 0.5))
        _restart(lab, away=3 * TIMES["lease"])
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


def _restart(lab: Lab, *, away: float) -> None:
    """Kill PostgreSQL at once, and start it again after so many seconds."""
    assert lab.postgres
    lab.log.write("restart", "postgres", away=round(away, 2))
    lab.postgres.kill()
    time.sleep(away)
    lab.postgres.start()
