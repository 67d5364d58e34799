"""What a job's life must be, in plain Python: the table of transitions without a database, for the machine to compare with.

A method is named like the function of the store that it stands for, and answers in plain values. Nothing but a test moves `Model.now`.
"""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from db.states import TERMINAL
from tests.db.life.expected import Expected, Kept

LEASE, BACKOFF, PAUSE, SECONDS, TTL, STALE, OLD = 2500.0, 1500.0, 1100.0, 3500.0, 5200.0, 2700.0, 1700.0
"""Time moves by whole thousands, so that nothing is ever due within the seconds that an example really takes."""
MAX_QUEUED, MAX_CRASHES, MAX_RUNNING = 3, 3, 2
TOO_MANY, GONE = "too many", "gone"

Answer = tuple[str, str] | None
"""The state and the wish that a wish is answered with."""
Held = tuple[str, int]
"""A claim: the job and the fence."""


@dataclass
class Model:
    """Every job of an example; `turns` says when a tenant was last given a worker, `blobs` when the named bytes were touched."""

    now: float = 0.0
    jobs: dict[str, Expected] = field(default_factory=dict)
    keys: dict[tuple[str, str], str] = field(default_factory=dict)
    turns: Counter[str] = field(default_factory=Counter)
    blobs: dict[tuple[str, str], float] = field(default_factory=dict)
    artifacts: set[tuple[str, str]] = field(default_factory=set)

    def _held(self, claim: Held) -> Expected | None:
        job = self.jobs[claim[0]]
        return job if job.state == "running" and job.fence == claim[1] else None

    def _ended(self, claim: Held) -> str | None:
        job = self.jobs[claim[0]]
        return job.state if job.fence == claim[1] and job.state != "running" else None

    def _tell(self, job: Expected, *kinds: str) -> None:
        job.told += [(kind, job.fence) for kind in kinds]
        job.at = self.now

    def _moved(self, job: Expected) -> None:
        self._tell(job, "succeeded" if job.state == "succeeded" else "status")
        if job.state == "cancelled" and job.cancel_keep == "nothing":
            self._drop(job, job.kept)

    def _drop(self, job: Expected, kept: Collection[Kept]) -> None:
        """Checkpoints go, and the bytes that nothing names any more."""
        job.kept = [one for one in job.kept if one not in kept]
        for one in kept:
            if (job.tenant, one.blob) not in self._named():
                self.blobs.pop((job.tenant, one.blob), None)

    def _named(self) -> set[tuple[str, str]]:
        return self.artifacts | {(job.tenant, one.blob) for job in self.jobs.values() for one in job.kept}

    def _leave(self, job: Expected, state: str, code: str | None = None) -> None:
        """The end of a claim."""
        if job.deadline is not None:
            job.seconds_left = job.deadline - self.now
        job.state, job.code, job.lease, job.deadline, job.published = state, code, None, None, None

    def _late(self, job: Expected) -> bool:
        return job.deadline is not None and job.deadline < self.now

    def count(self, tenant: str, state: str) -> int:
        """How many jobs a tenant has in a state."""
        return sum(job.tenant == tenant and job.state == state for job in self.jobs.values())

    def submit(self, tenant: str, *, queue: str, priority: int, seconds: float | None, key: str | None, new: Callable[[], str]) -> str:
        if key and (tenant, key) in self.keys:
            return self.keys[tenant, key]
        if self.count(tenant, "queued") >= MAX_QUEUED:
            return TOO_MANY
        job = Expected(new(), tenant, queue, priority, self.now, seconds, seconds)
        self.jobs[job.id] = job
        self._moved(job)
        if key:
            self.keys[tenant, key] = job.id
        return job.id

    def retry_as_new(self, id: str, *, from_checkpoint: bool, new: Callable[[], str]) -> str | None:
        old = self.jobs[id]
        if old.state not in ("failed", "cancelled"):
            return None
        made = self.submit(old.tenant, queue=old.queue, priority=old.priority, seconds=old.seconds_limit, key=None, new=new)
        if made != TOO_MANY:
            self.jobs[made].parent_id = id
            self.jobs[made].kept = list(old.kept) if from_checkpoint else []
        return made

    def claim(self, queues: Collection[str]) -> Held | None:
        able = [
            job
            for job in self.jobs.values()
            if job.state == "queued" and job.run_after <= self.now and job.queue in {*queues, "any"}
            if self.count(job.tenant, "running") < MAX_RUNNING
        ]
        if not able:
            return None
        job = min(able, key=lambda job: (self.count(job.tenant, "running"), self.turns[job.tenant], -job.priority, job.id))
        self.turns[job.tenant] = max(self.turns.values(), default=0) + 1
        job.state, job.fence, job.attempt = "running", job.fence + 1, job.attempt + 1
        job.attempts[job.fence] = False
        job.lease = self.now + LEASE
        job.deadline = None if job.seconds_left is None else self.now + job.seconds_left
        self._moved(job)
        return job.id, job.fence

    def renew(self, claim: Held) -> tuple[str, bool, bool] | None:
        if job := self._held(claim):
            job.lease = self.now + LEASE
        return self.wish(claim)

    def wish(self, claim: Held) -> tuple[str, bool, bool] | None:
        job = self._held(claim)
        return (job.desired, self._late(job), job.cancel_mode == "graceful") if job else None

    def record(self, claim: Held, kinds: Sequence[str]) -> bool:
        job = self._held(claim)
        if job and kinds:
            self._tell(job, *kinds)
        return job is not None

    def put(self, tenant: str, blob: str) -> None:
        self.blobs[tenant, blob] = self.now

    def keep_checkpoint(self, claim: Held, new: Kept) -> bool | str:
        job = self._held(claim)
        if job and (job.done is None or job.done < new.done):
            if (job.tenant, new.blob) not in self.blobs:
                return GONE
            job.kept = [*job.kept, new]
            job.crashes = 0
            self._tell(job, "checkpoint")
            judged = [one for one in job.kept if one.accuracy is not None]
            best = max(judged, key=lambda one: (one.accuracy, one.done), default=None)
            self._drop(job, [one for one in job.kept[:-2] if one != best])
        return job is not None

    def fall_back(self, claim: Held, done: int) -> int | str | None:
        job = self._held(claim)
        if job and job.done == done:
            self._drop(job, job.kept[-1:])
            self._tell(job, "checkpoint_corrupt")
        return job.done if job else GONE

    def end_attempt(self, claim: Held, code: str) -> bool:
        job, fence = self.jobs[claim[0]], claim[1]
        if not job.attempts[fence]:
            job.attempts[fence] = True
            if code == "storage_full":
                job.full.append(fence)
            self._tell(job, "attempt")
        return True

    def complete(self, claim: Held, files: Sequence[str]) -> bool:
        job = self._held(claim)
        if job and job.desired != "cancel":
            self._tell(job, *["artifact"] * len(files))
            self.artifacts |= {(job.tenant, file) for file in files}
            self._leave(job, "succeeded")
            self._moved(job)
            return True
        return self._ended(claim) == "succeeded"

    def _end(self, claim: Held, state: str, code: str | None) -> str | None:
        """An end that a cancel outdoes."""
        if (job := self._held(claim)) is None:
            return self._ended(claim)
        cancelled = job.desired == "cancel"
        self._leave(job, "cancelled" if cancelled else state, "cancelled" if cancelled else code)
        self._moved(job)
        return job.state

    def fail(self, claim: Held) -> str | None:
        return self._end(claim, "failed", "diverged")

    def yield_(self, claim: Held) -> str | None:
        if job := self._held(claim):
            job.attempt, job.run_after = job.attempt - 1, self.now
        return self._end(claim, "paused" if job and job.desired == "pause" else "queued", None)

    def shelve(self, claim: Held) -> str | None:
        code = None
        if job := self._held(claim):
            again = sum(fence < job.fence for fence in job.full)
            job.attempt, job.run_after = job.attempt - 1, self.now + PAUSE * 2 ** min(again, 6)
            if job.desired == "run":
                job.desired, code = "pause", "storage_full"
        return self._end(claim, "paused", code)

    def retry(self, claim: Held, backoff: float, max_crashes: int) -> str | None:
        job = self._held(claim)
        return self._crash(job, claim, "native_crash", backoff, max_crashes) if job else self._ended(claim)

    def _crash(self, job: Expected, claim: Held, code: str, backoff: float, max_crashes: int) -> str | None:
        job.crashes += 1
        job.run_after = self.now + backoff
        if self._late(job):
            return self._end(claim, "failed", "deadline")
        if job.crashes >= max_crashes:
            return self._end(claim, "quarantined", code)
        return self._end(claim, "paused" if job.desired == "pause" else "queued", None)

    def pause(self, id: str) -> Answer:
        job = self.jobs[id]
        shelved = job.state == "paused" and job.code == "storage_full"
        if (job.state in ("queued", "running") and job.desired == "run") or shelved:
            job.desired, job.code = "pause", None
            if job.state == "queued":
                job.state = "paused"
            self._moved(job)
        return _granted(job, ("running", "pause"), ("paused", "pause"))

    def resume(self, id: str) -> Answer:
        job = self.jobs[id]
        if job.state in ("paused", "running") and job.desired == "pause":
            self._requeue(job)
        return _granted(job, ("running", "run"), ("queued", "run"))

    def release(self, id: str) -> Answer:
        job = self.jobs[id]
        if job.state == "quarantined":
            job.crashes = 0
            self._requeue(job)
        return _granted(job, ("queued", "run"), ("running", "run"))

    def _requeue(self, job: Expected) -> None:
        job.desired, job.run_after, job.published, job.code = "run", self.now, None, None
        if job.state != "running":
            job.state = "queued"
        self._moved(job)

    def cancel(self, id: str, mode: str = "now", keep: str = "checkpoint") -> Answer:
        """A harder cancel is taken after a softer one, and never the other way round."""
        job = self.jobs[id]
        first = job.state not in TERMINAL and job.desired != "cancel"
        harder = job.desired == "cancel" and (
            (job.state == "running" and (mode, job.cancel_mode) == ("now", "graceful"))
            or (job.state in ("running", "cancelled") and (keep, job.cancel_keep) == ("nothing", "checkpoint"))
        )
        if first or harder:
            job.cancel_mode = mode if first or mode == "now" else job.cancel_mode
            job.cancel_keep = keep if first or keep == "nothing" else job.cancel_keep
            job.desired = "cancel"
            if job.state != "running":
                job.state, job.code = "cancelled", "cancelled"
            self._moved(job)
        return _granted(job, ("running", "cancel"), ("cancelled", "cancel"))

    def reap(self) -> dict[str, str]:
        over = [job for job in self.jobs.values() if job.lease is not None and job.lease < self.now]
        for job in over:
            self.end_attempt((job.id, job.fence), "worker_lost")
            job.fence += 1
            self._crash(job, (job.id, job.fence), "worker_lost", 0.0, MAX_CRASHES)
        return {job.id: job.state for job in over}

    def expire(self) -> set[str]:
        stale = [job for job in self.jobs.values() if job.state == "queued" and job.run_after < self.now - TTL]
        for job in stale:
            job.state, job.code = "failed", "no_worker"
            self._moved(job)
        return {job.id for job in stale}

    def unshelve(self, queues: Collection[str]) -> set[str]:
        able = [job for job in self.jobs.values() if job.state == "paused" and job.code == "storage_full" and job.run_after <= self.now]
        able = [job for job in able if job.queue in {*queues, "any"}]
        for job in able:
            self._requeue(job)
        return {job.id for job in able}

    def unpublished(self) -> Counter[str]:
        able = [job for job in self.jobs.values() if job.state == "queued" and job.run_after <= self.now]
        silent = [job for job in able if job.published is None or job.published < self.now - STALE]
        for job in silent:
            job.published = self.now
        return Counter(job.queue for job in silent)

    def forget_finished(self) -> None:
        for job in self.jobs.values():
            if job.state in TERMINAL and job.at < self.now - OLD:
                self._drop(job, job.kept)

    def collect(self) -> None:
        named = self._named()
        self.blobs = {place: touched for place, touched in self.blobs.items() if place in named or touched >= self.now - OLD}


def _granted(job: Expected, *answers: tuple[str, str]) -> Answer:
    answer = job.state, job.desired
    return answer if answer in answers else None
