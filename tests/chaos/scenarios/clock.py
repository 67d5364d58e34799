"""A worker whose clock is wrong, or jumps: W7. Time is the database's clock, so nobody should notice.

libfaketime changes what one process believes. On SQLite the database's clock is the process's own, and there is one machine: not here.
"""

import glob
import random
import time
from pathlib import Path

from tests.chaos.catalogue import Times, scenario
from tests.chaos.lab import WORKER, Lab

HOURS = 2
LIBRARIES = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib/faketime/libfaketimeMT.so.1", "/usr/local/lib/faketime/libfaketimeMT.so.1")


def missing() -> str | None:
    """Why clocks cannot be shifted on this machine; None where they can."""
    return None if _library() else "libfaketime is missing (Debian's package faketime): no clock can be shifted"


def wrongly_timed(offset: Path) -> tuple[str, ...]:
    """The beginning of a command whose clock's error stands in a file, which may change meanwhile; "+7200" is two hours ahead."""
    library = _library()
    assert library, missing()
    return (
        "env", f"LD_PRELOAD={library}", f"FAKETIME_TIMESTAMP_FILE={offset}", "FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1",
    )  # fmt: skip


@scenario("W7", dialects=("postgresql",))
def a_clock_is_wrong(lab: Lab, n: int, draw: random.Random, times: Times) -> None:
    """One worker's clock is two hours ahead, two hours behind, and jumps between them while its job runs."""
    offset = lab.folder / "offset"
    offset.write_text(f"+{HOURS * 3600}")
    for each in lab.healthy:
        lab.end(each)
    wrong = lab.start_worker(command=(*wrongly_timed(offset), *WORKER))
    for _ in range(n):
        id = lab.train(pause=0.05)
        fence = lab.runs(id)
        lab.have(1)
        for hours in draw.sample([HOURS, -HOURS, 0], k=3):
            time.sleep(draw.uniform(0, 0.5))
            lab.log.write("jump", wrong.name, hours=hours)
            offset.write_text(f"{hours * 3600:+d}")
        job = lab.reaches(id, "succeeded")
        assert job.fence == fence, f"the job {id} was taken from a worker that was well"


def _library() -> str | None:
    return next((found for pattern in LIBRARIES for found in glob.glob(pattern)), None)
