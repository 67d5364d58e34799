"""What a job goes on from: R1 the real engine's checkpoints, S2 damaged ones, D5 a whole machine that goes out."""

import random
import sqlite3
import time

from tests.chaos import engine
from tests.chaos.catalogue import Times, batches, scenario
from tests.chaos.lab import Lab


@scenario("R1")
def the_engine_is_killed(lab: Lab, n: int, draw: random.Random, times: Times) -> None:
    """SIGKILL of the real engine some time after a checkpoint: the student is that of a training that nothing interrupted."""
    lab.clear()
    lab.start_worker(child=engine.ENGINE)
    for _ in range(n):
        id = engine.train(lab)
        lab.progresses(id)
        time.sleep(draw.uniform(0, 0.3))
        fence = lab.job(id).fence
        if lab.kill_child(id):
            with times.measure("the engine's death to its next attempt"):
                lab.runs(id, after=fence)
        lab.reaches(id, "succeeded", "quarantined", "failed")


@scenario("D5", dialects=("sqlite",), embedded=True)
def the_machine_goes_out(lab: Lab, n: int, draw: random.Random, times: Times) -> None:
    """SIGKILL of everything at once on one machine, with SQLite and a folder of messages: it goes on at the next start."""
    for batch in batches(n, 1):
        workers = lab.have(2)
        ids = [lab.train(pause=0.04) for _ in range(2 * batch)]
        for id in ids:
            lab.runs(id)
        time.sleep(draw.uniform(0, 1))
        for each in workers:
            lab.kill(each)
        with sqlite3.connect(lab.database_url.removeprefix("sqlite:///")) as file:
            (found,) = file.execute("PRAGMA integrity_check").fetchone()
        assert found == "ok", f"the database file is damaged: {found}"
        with times.measure("the start after a loss of power to the end of the jobs"):
            lab.have(1)
            for id in ids:
                lab.reaches(id, "succeeded")
