"""The life of a job: every transition is one conditional statement, and whoever gets no row back has lost and stops.

    submission.py  ∅ → queued                           by the API
    run.py         claim, renew, record, checkpoint     by the supervisor that holds the claim; every write carries its fence
    end.py         complete, fail, retry, yield, shelve likewise: how a claim ends
    trials.py      a job becomes a trial of a sweep    by the API
    wishes.py      pause, resume, cancel, release      by the tenant: `desired`, and `state` only of a job that is not running
    upkeep.py      reap, expire, unshelve, unpublished by the maintainer

The promise: at-least-once execution from the last checkpoint, exactly-once completion.
"""

from db.life.end import NewArtifact, complete, end_attempt, fail, retry, shelve, yield_
from db.life.job import Claim, Job, Renewal
from db.life.run import claim, fall_back, keep_checkpoint, record, renew, wish
from db.life.submission import KeyReused, TooManyQueued, submit
from db.life.trials import NotTheNext, refuse
from db.life.upkeep import claimable, expire, reap, shelved, unpublished, unshelve, up_for
from db.life.wishes import cancel, pause, prune, release, resume, retry_as_new

__all__ = [
    "Claim", "Job", "KeyReused", "NewArtifact", "NotTheNext", "Renewal", "TooManyQueued",
    "cancel", "claim", "claimable", "complete", "end_attempt", "expire", "fail", "fall_back", "keep_checkpoint", "pause", "prune", "reap",
    "record", "refuse", "release", "renew", "resume", "retry", "retry_as_new", "shelve", "shelved", "submit", "unpublished", "unshelve",
    "up_for", "wish", "yield_",
]  # fmt: skip
