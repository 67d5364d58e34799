"""Everybody who may touch a job, at random: two tenants, workers, the maintainer; after each step the rows must be what the model says.

Workers die between any two statements, sleep past their lease and come back with an old claim; transactions are rolled back in the
middle, and commits happen whose answer is lost.
"""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from random import Random
from typing import Any, get_args

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from db import garbage, life
from db.access import Tenant
from db.session import Database, Unavailable
from tests.db.given import PROBLEM
from tests.db.life import model
from tests.db.life.compared import Compared, Step
from tests.db.life.expected import Expected, Kept
from tests.db.life.faults import Died, Fault, Kind
from tests.db.life.model import BACKOFF, LEASE, MAX_CRASHES, MAX_QUEUED, OLD, Held

_MOST = 12
"""Jobs beyond this would only draw from those that are there."""
_KINDS: tuple[Kind, ...] = get_args(Kind)
_FAULTS = [None] * 48 + [Fault(kind, at) for kind in _KINDS for at in (1, 2, 3, 4)]
_STEPS = {
    "claim": 5, "end": 5, "ask": 5, "keep_checkpoint": 3, "wait": 2, "maintain": 2, "record": 2, "fall_back": 1, "renew": 1, "submit": 2,
    "retry_as_new": 1,
}  # fmt: skip
"""How often each is drawn. One rule draws all of it from a seed: of many rules Hypothesis would switch about half off in each example, and
prefer the first of every choice, so that few examples got a job as far as its second claim."""
_OFTEN = [name for name, times in _STEPS.items() for _ in range(times)]
_ENDS = ["complete", "fail", *["yield", "retry at once"] * 3, "shelve", "retry", "give up soon", "nothing"]
_WISHES: list[tuple[str, dict[str, str]]] = [
    ("pause", {}),
    ("resume", {}),
    ("release", {}),
    ("cancel", {}),
    ("cancel", {"mode": "graceful"}),
    ("cancel", {"keep": "nothing"}),
    ("cancel", {"mode": "graceful", "keep": "nothing"}),
]
_APT = {
    ("queued", "run"): "pause",
    ("running", "run"): "pause",
    ("running", "pause"): "resume",
    ("paused", "pause"): "resume",
    ("quarantined", "run"): "release",
}
"""The wish that moves a job on; those that end it are drawn less often."""


def _reap(db: Database) -> dict[str, str]:
    return {one.id: one.state for one in life.reap(db, max_crashes=MAX_CRASHES, since=LEASE, lease=LEASE)}


def _to_the_end(duty: Callable[..., int], db: Database) -> None:
    """It makes many transactions: whoever comes next ends what another broke off."""
    with suppress(Unavailable, Died):
        duty(db, older=OLD)
    duty(db, older=OLD)


_DUTIES = {
    "reap": Step(_reap, lambda m: m.reap()),
    "expire": Step(lambda db: {one.id for one in life.expire(db, ttl=model.TTL)}, lambda m: m.expire()),
    "unshelve": Step(lambda db: {one.id for one in life.unshelve(db, ["cpu"])}, lambda m: m.unshelve(["cpu"])),
    "reconcile": Step(lambda db: Counter(life.unpublished(db, stale=model.STALE)), lambda m: m.unpublished()),
    "forget": Step(lambda db: _to_the_end(garbage.forget_finished, db), lambda m: m.forget_finished()),
    "collect": Step(lambda db: _to_the_end(garbage.collect, db), lambda m: m.collect()),
}


class Machine(Compared):
    """See the head of this file."""

    def __init__(self, database: Database, salt: int) -> None:
        super().__init__(database)
        self.salt = salt
        self.claims: list[life.Claim] = []
        self.seeds: Counter[int] = Counter()
        self.pick: Callable[[Sequence[Any]], Any] = Random(0).choice

    @initialize()
    def begin(self) -> None:
        """Jobs enough to be unfair with, one of them with few seconds."""
        for owner, limited in ((0, True), (0, False), (1, False)):
            self.insert(owner, queue="any", priority=0, limited=limited, key=None, fault=None)

    @rule(seed=st.integers(0, 2**64 - 1))
    def step(self, seed: int) -> None:
        self.seeds[seed] += 1
        self.pick = Random(f"{self.salt} {seed} {self.seeds[seed]}").choice  # Hypothesis likes to draw what it drew before
        name = self.pick([name for name in _OFTEN if self.possible(name)])
        note(name)
        getattr(self, name)()

    def possible(self, name: str) -> bool:
        """Whether there is a job, or a claim, to do it to."""
        if name in ("submit", "retry_as_new"):
            return len(self.model.jobs) < _MOST
        return bool(self.claims) or name in ("claim", "ask", "wait", "maintain")

    def do(self, step: Step) -> Any:
        """Call the store, with a fault now and then."""
        return self.call(step, self.pick(_FAULTS))

    def claimed(self) -> tuple[life.Claim, Held]:
        """Mostly a claim that holds; sometimes any that was ever taken, as a worker that slept would use it."""
        holding = [claim for claim in self.claims if self.model.wish((claim.job.id, claim.fence))]
        sleeping = [claim for claim in self.claims if claim not in holding]
        among = holding if holding and (not sleeping or self.pick([True, True, True, False])) else sleeping
        claim = among[-1 - self.pick(range(len(among)))]
        return claim, (claim.job.id, claim.fence)

    def known(self, states: Collection[str]) -> tuple[Tenant, Expected]:
        """One of the jobs and its owner: mostly one in these states."""
        everyone = list(self.model.jobs.values())
        apt = [one for one in everyone if one.state in states]
        among = apt if apt and self.pick([True, True, True, False]) else everyone
        found = among[self.pick(range(len(among)))]
        return Tenant(found.tenant), found

    def submit(self) -> None:
        owner, key, queue = self.pick([0, 1]), self.pick([None, "k", "k"]), self.pick(["any", "cpu", "gpu"])
        fault = self.pick(_FAULTS)
        self.insert(owner, queue=queue, priority=self.pick([0, 1]), limited=self.pick([False, True]), key=key, fault=fault)

    def insert(self, owner: int, *, queue: str, priority: int, limited: bool, key: str | None, fault: Fault | None) -> None:
        who, seconds = self.tenants[owner], model.SECONDS if limited else None

        def call(db: Database) -> str:
            try:
                return life.submit(
                    db, who, name="r20", spec={}, spec_sha="a" * 64, inputs={"task": {}, "blobs": {}}, queue=queue, priority=priority,
                    seconds_limit=seconds, idempotency=(key, "same") if key else None, max_queued=MAX_QUEUED,
                ).id  # fmt: skip
            except life.TooManyQueued:
                return model.TOO_MANY

        wanted: dict[str, Any] = {"queue": queue, "priority": priority, "seconds": seconds, "key": key, "new": self.newcomer}
        self.call(Step(call, lambda m: m.submit(who.id, **wanted)), fault)

    def retry_as_new(self) -> None:
        (who, old), start = self.known({"failed", "cancelled"}), self.pick(["checkpoint", "start"])

        def call(db: Database) -> str | None:
            try:
                again = life.retry_as_new(db, who, old.id, start=start, max_queued=MAX_QUEUED)
            except life.TooManyQueued:
                return model.TOO_MANY
            return again.id if again else None

        self.do(Step(call, lambda m: m.retry_as_new(old.id, from_checkpoint=start == "checkpoint", new=self.newcomer)))

    def claim(self) -> None:
        worker, queues = self.pick(["w1", "w2"]), self.pick([["cpu", "gpu"], ["cpu", "gpu"], ["cpu"]])

        def call(db: Database) -> Held | None:
            claim = life.claim(db, worker=worker, queues=queues, lease=LEASE)
            if claim is None:
                return None
            self.claims.append(claim)
            return claim.job.id, claim.fence

        self.do(Step(call, lambda m: m.claim(queues)))

    def renew(self) -> None:
        claim, held = self.claimed()
        if self.pick([True, False]):
            self.do(Step(lambda db: _renewal(life.wish(db, claim)), lambda m: m.wish(held)))
        else:
            self.do(Step(lambda db: _renewal(life.renew(db, claim, lease=LEASE)), lambda m: m.renew(held)))

    def record(self) -> None:
        (claim, held), kinds = self.claimed(), self.pick([["metrics"], [], ["log", "metrics", "log"]])
        self.do(Step(lambda db: life.record(db, claim, [(kind, {}) for kind in kinds]), lambda m: m.record(held, kinds)))

    def keep_checkpoint(self) -> None:
        """Sometimes the bytes were put long ago and the worker slept: others may have been the last to need them."""
        claim, held = self.claimed()
        blob = self.put(claim, self.pick([b"a", b"b"]), now=self.pick([True, True, False]))
        accuracy = self.pick([None, 0.5, 0.9])
        new = Kept(max(1, (self.model.jobs[claim.job.id].done or 0) + self.pick([1, 0, 2, -1])), blob, accuracy)

        def call(db: Database) -> bool | str:
            measured = {} if accuracy is None else {"accuracy": accuracy}
            try:
                return life.keep_checkpoint(db, claim, blob=blob, done=new.done, fit=0, step=new.done, values=measured)
            except KeyError:
                return model.GONE

        self.do(Step(call, lambda m: m.keep_checkpoint(held, new)))

    def fall_back(self) -> None:
        claim, held = self.claimed()
        done = self.pick([one.done for one in self.model.jobs[claim.job.id].kept[::-1]] or [1])

        def call(db: Database) -> int | str | None:
            found = life.fall_back(db, claim, done=done, reason="a byte is wrong")
            if found is None:
                return model.GONE
            return found.checkpoint["done"] if found.checkpoint else None

        self.do(Step(call, lambda m: m.fall_back(held, done)))

    def end(self) -> None:
        """The child is dead; a worker that dies between the two statements leaves the rest to the reaper."""
        claim, held = self.claimed()
        how = self.pick(_ENDS if self.model.jobs[claim.job.id].desired == "run" else sorted(set(_ENDS)))
        code = "storage_full" if how == "shelve" else "native_crash"

        def tell(db: Database) -> bool:
            life.end_attempt(db, claim, exit_code=1, signal=None, max_rss=None, code=code, log_tail="")
            return True

        lived = self.do(Step(tell, lambda m: m.end_attempt(held, code)))
        if not lived or how == "nothing":
            return
        blobs = [self.put(claim, data) for data in self.pick([[b"student"], [], [b"a", b"student"]])] if how == "complete" else []
        made = [life.NewArtifact(name=f"{i}", format="s", sha256=blob, bytes=7, facts={}) for i, blob in enumerate(blobs)]
        ends = {
            "complete": Step(lambda db: life.complete(db, claim, result={}, artifacts=made), lambda m: m.complete(held, blobs)),
            "fail": Step(lambda db: life.fail(db, claim, code="diverged", problem=PROBLEM), lambda m: m.fail(held)),
            "yield": Step(lambda db: life.yield_(db, claim), lambda m: m.yield_(held)),
            "shelve": Step(lambda db: life.shelve(db, claim, problem=PROBLEM, pause=model.PAUSE), lambda m: m.shelve(held)),
            "retry": _retry(claim, held, BACKOFF, MAX_CRASHES),
            "retry at once": _retry(claim, held, 0.0, MAX_CRASHES),
            "give up soon": _retry(claim, held, 0.0, 2),
        }
        self.do(ends[how])

    def ask(self) -> None:
        who, of = self.known({"queued", "running", "paused", "quarantined"})
        apt = _APT.get((of.state, of.desired))
        name, how = (apt, {}) if apt and self.pick([True, True, False]) else self.pick(_WISHES)

        def call(db: Database) -> tuple[str, str] | None:
            found = getattr(life, name)(db, who, of.id, **how)
            return (found.state, found.desired) if found else None

        self.do(Step(call, lambda m: getattr(m, name)(of.id, **how)))

    def maintain(self) -> None:
        self.do(_DUTIES[self.pick(list(_DUTIES))])

    def wait(self) -> None:
        self.go_on(1000.0 * self.pick([1, 2, 3, 4]))
        if self.pick([True, False]):
            self.do(_DUTIES["reap"])


def _renewal(told: life.Renewal | None) -> tuple[str, bool, bool] | None:
    return (told.desired, told.deadline_passed, told.graceful) if told else None


def _retry(claim: life.Claim, held: Held, backoff: float, most: int) -> Step:
    told: dict[str, Any] = {"code": "native_crash", "problem": PROBLEM, "backoff": backoff, "max_crashes": most}
    return Step(lambda db: life.retry(db, claim, **told), lambda m: m.retry(held, backoff, most))
