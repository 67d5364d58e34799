"""How an attempt ends for the job: completed with its files, or handed back with the verdict."""

import logging
import random
import threading
from dataclasses import dataclass

from core.blobs import BlobStore
from core.events import File, Log
from db import life
from db.access import Tenant
from db.blobs import Blobs
from db.crashpoint import crashpoint
from db.session import Database
from worker.child import Ending
from worker.lease import Ended, Lease
from worker.record import Recorder
from worker.settings import Settings
from worker.stage import JobFolder, NoRoom, Tick, keep
from worker.verdict import Verdict

log = logging.getLogger(__name__)

_BACKOFF = (0, 1, 6, 30)
"""Pauses before the retries of a job that dies at one place, as multiples of the setting: the first is at once."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """What is needed to end an attempt whose child is dead. All of it insists while the database is away."""

    settings: Settings
    database: Database
    claim: life.Claim
    lease: Lease
    blobs: BlobStore
    folder: JobFolder
    recorder: Recorder
    tick: Tick

    def complete(self, ending: Ending) -> Verdict:
        """Keep every file that the child made, then complete the job; the verdict says whether it counted."""
        told = self.recorder
        artifacts = [
            life.NewArtifact(name=file.name, format=export.format, sha256=self._kept(file), bytes=file.bytes, facts=export.facts)
            for export in told.exports
            for file in export.files
        ]
        canonical = None
        for file in told.inspected.files if told.inspected else ():
            if file.name == "preview":
                sha256 = self._kept(file)
                artifacts.append(life.NewArtifact(name="preview.png", format="preview", sha256=sha256, bytes=file.bytes, facts={}))
            else:
                canonical = self._kept(file, Blobs(self.database, Tenant(self.claim.job.tenant), large=True))
        result = dict(told.result.values if told.result else {})
        if told.inspected:
            result["report"] = told.inspected.report
        told.finish(tick=self.tick)
        self._end_attempt(ending, None)
        crashpoint("result.before")
        done = self.lease.insist(lambda: life.complete(self.database, self.claim, result=result, artifacts=artifacts, canonical=canonical))
        if not done:
            return Verdict("yield")  # the user cancelled in the last moment, or the claim is lost
        crashpoint("result.after_commit")
        log.info("completed job=%s fence=%d", self.claim.job.id, self.claim.fence)
        return Verdict("complete")

    def hand_back(self, verdict: Verdict, ending: Ending) -> None:
        """Fail, retry, shelve or yield, with the child's last lines; `Ended` where the claim is lost."""
        if verdict.action in ("retry", "shelve"):  # the job may wait for its next attempt, with no problem of its own: its log says why
            self.recorder.take(Log(verdict.reason, level="error"))
        self.recorder.finish(tick=self.tick)
        self._end_attempt(ending, verdict)
        database, claim = self.database, self.claim
        problem = verdict.problem(self.folder.tail())
        code = verdict.code or "internal_error"
        if verdict.action == "fail":
            state = self.lease.insist(lambda: life.fail(database, claim, code=code, problem=problem))
        elif verdict.action == "retry":
            crashes = 0 if self.recorder.progressed else claim.job.crashes
            pause = self.settings.backoff * _BACKOFF[min(crashes, len(_BACKOFF) - 1)] * random.uniform(0.8, 1.2)
            most = verdict.max_crashes(self.settings.max_crashes)
            state = self.lease.insist(lambda: life.retry(database, claim, code=code, problem=problem, backoff=pause, max_crashes=most))
        elif verdict.action == "shelve":
            wait = self.settings.storage_pause
            state = self.lease.insist(lambda: life.shelve(database, claim, problem=problem, pause=wait))
        else:
            crashpoint("yield.before")
            state = self.lease.insist(lambda: life.yield_(database, claim))
        if state is None:
            raise Ended("lost")
        log.info("handed back job=%s fence=%d state=%s %s", claim.job.id, claim.fence, state, verdict.code or "")

    def _kept(self, file: File, store: BlobStore | None = None) -> str:
        path = self.folder.file(file.path)
        return self.lease.insist(lambda: keep(path, file.sha256, store or self.blobs, tick=self.tick))

    def _end_attempt(self, ending: Ending, verdict: Verdict | None) -> None:
        tail = self.folder.tail()
        self.lease.insist(
            lambda: life.end_attempt(
                self.database, self.claim, exit_code=ending.exit_code, signal=ending.signal, max_rss=ending.max_rss or None,
                code=verdict.code if verdict else None, log_tail=tail,
            )
        )  # fmt: skip


def shelve(settings: Settings, database: Database, claim: life.Claim, full: NoRoom, *, stopping: threading.Event) -> None:
    """End a claim for which there was no room, not even for a job folder."""
    log.warning("job=%s has no folder: %s", claim.job.id, full)
    problem = Verdict("shelve", "storage_full", str(full)).problem("")
    lease = Lease(database, claim, settings, stopping=stopping)
    lease.insist(lambda: life.end_attempt(database, claim, exit_code=None, signal=None, max_rss=None, code="storage_full", log_tail=""))
    lease.insist(lambda: life.shelve(database, claim, problem=problem, pause=settings.storage_pause))
