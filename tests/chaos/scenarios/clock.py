"""A worker whose clock is wrong, or jumps: W7. Time is the database's clock, so nobody should notice.

libfaketime changes what one process believes. On SQLite the database's clock is the process's own, and there is one machine: not here.
"""

import glob
import random
import time
from email.utils import parsedate_to_datetime
from pathlib import Path

from tests.chaos.api import COMMAND, Api, api
from tests.chaos.catalogue import Missing, Times, scenario
from tests.chaos.lab import WORKER, Lab, until

HOURS = 2
LIBRARIES = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib/faketime/libfaketimeMT.so.1", "/usr/local/lib/faketime/libfaketimeMT.so.1")


def wrongly_timed(offset: Path) -> tuple[str, ...]:
    """The beginning of a command whose clock's error stands in a file, which may change meanwhile: "+7200" is two hours ahead."""
    library = next((found for pattern in LIBRARIES for found in glob.glob(pattern)), None)
    if library is None:
        raise Missing("libfaketime is missing (Debian's package faketime): no process can have a wrong clock")
    return (
        "env", f"LD_PRELOAD={library}", f"FAKETIME_TIMESTAMP_FILE={offset}", "FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1",
    )  # fmt: skip


@scenario("W7", dialects=("postgresql",))
def a_clock_is_wrong(lab: Lab, n: int, draw: random.Random, times: Times) -> None:
    """The clocks of one worker and of the API are hours ahead or behind, and jump while jobs run."""
    offset = lab.folder / "offset"
    offset.write_text("+0")
    prefix = wrongly_timed(offset)
    with api(lab, command=(*prefix, *COMMAND)) as door:
        wrong = lab.start_worker(command=(*prefix, *WORKER))
        for _ in range(n):
            id = lab.train(pause=0.05)
            fence = lab.runs(id)
            lab.have(1)
            for hours in draw.sample([HOURS, -HOURS, 0], k=3):
                lab.log.write("jump", wrong.name, hours=hours)
                offset.write_text(f"{hours * 3600:+d}")
                until(lambda hours=hours: abs(_clock(door) - time.time() - hours * 3600) < 60)  # type: ignore[misc]
                with times.measure("a submit to an API with a wrong clock"):
                    assert door.submit(door.body(f"w7-{lab.number('key')}")), "the API did not answer"
                time.sleep(draw.uniform(0.3, 0.8))
            job = lab.reaches(id, "succeeded")
            assert job.fence == fence, f"the job {id} was taken from a worker that was well"
        for id in lab.accepted:
            assert lab.reaches(id, "succeeded").crashes == 0, f"the job {id} was taken for dead"


def _clock(door: Api) -> float:
    """What the API believes the time to be."""
    return parsedate_to_datetime(door.http.get("/livez").headers["date"]).timestamp()
