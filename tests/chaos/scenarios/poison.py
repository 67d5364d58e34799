"""Jobs that kill their process every time: P1; and one that always gets a little further: P2."""

import random

from tests.chaos.catalogue import Times, batches, scenario
from tests.chaos.lab import Lab
from tests.worker.lab import TOY

WAYS: dict[str, tuple[str, str]] = {
    "segfault": ("quarantined", "native_crash"),
    "abort": ("quarantined", "native_crash"),
    "raise": ("quarantined", "internal_error"),
    "memory": ("quarantined", "oom_host"),
    "hog": ("quarantined", "oom_host"),
    "starve": ("quarantined", "oom_gpu"),
    "hang": ("quarantined", "stalled"),
    "leave": ("quarantined", "internal_error"),
    "refuse": ("failed", "incompatible_pair"),
    "diverge": ("failed", "diverged"),
    "babble": ("succeeded", ""),
}
"""What a child does at its third step, and how the job must end."""
_MAX_CRASHES = 3


@scenario("P1")
def a_job_is_poison(lab: Lab, n: int, draw: random.Random, times: Times) -> None:
    """Every way to die in turn: the right end with the right code after three attempts at most, and the worker serves the next job."""
    lab.clear()
    worker = lab.start_worker(child=TOY, slots=4, memory=256 << 20, silence=3, max_crashes=_MAX_CRASHES, cancel_grace=0.2)
    names = list(WAYS)
    draw.shuffle(names)
    for batch in batches(n, len(names)):
        poison = {}
        for name in names[:batch]:
            state, _ = WAYS[name]
            id = lab.submit(die=name, steps=10)
            poison[lab.accept(id, ends=frozenset({state}), steps=10)] = name
            lab.log.write("poison", id, way=name)
        good = lab.accept(lab.submit(steps=10), steps=10)
        with times.measure("a good job among poison"):
            lab.reaches(good, "succeeded")
        for id, name in poison.items():
            job = lab.reaches(id, "succeeded", "failed", "quarantined")
            assert (job.state, job.code or "") == WAYS[name], f"{name} ended as {job.state}, {job.code}"
            assert len(lab.attempts(id)) <= _MAX_CRASHES, f"{name} was tried {len(lab.attempts(id))} times"
    assert worker.alive, "the worker did not survive"


@scenario("P2")
def a_job_dies_after_each_bit_of_progress(lab: Lab, n: int, draw: random.Random, times: Times) -> None:
    """A child that dies after every checkpoint: not quarantined, for it gets further each time."""
    lab.clear()
    lab.start_worker(slots=3, max_crashes=3)
    for batch in batches(n, 3):
        ids = [lab.train(steps=50, die_every=10) for _ in range(batch)]
        for id in ids:
            lab.reaches(id, "succeeded", "quarantined", "failed")
            deaths = len(lab.attempts(id)) - 1
            lab.log.write("death after progress", id, n=deaths)
            assert deaths >= 4, f"{id} died {deaths} times"
