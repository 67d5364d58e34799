"""What moves sweeps on: a thread that looks at every running one, gives trials up, submits the next ones as ordinary jobs, and ends it.

It remembers nothing that it could not read again, so it may be stopped at any moment; several of them, in as many API processes, do no
harm: a trial's number is given once, to a job or to a refusal, while the sweep's row is locked.
"""

import logging
import statistics
import threading
from collections.abc import Sequence
from typing import Any

from api.deps import Service
from api.problems import Problem
from api.search import Params, Search, SweepSpec, search_of
from api.submission import draft, submit
from api.trials import Trial, best_of, read_trials
from core.errors import Refused
from db import life, sweeps
from db.access import Tenant
from db.session import Unavailable
from db.sweeps import Sweep

log = logging.getLogger(__name__)

HOPELESS = 20
"""Trials refused with not one job among them, after which a sweep fails: the rest would fare no better."""
_LAST_SEED = 2**53 - 1


class Sweeper:
    """The thread, from the application's start to its end."""

    def __init__(self, running: Service, *, every: float) -> None:
        self._running = running
        self._every = every
        self._known: dict[str, dict[int, Trial]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop after the sweep that is being looked at."""
        self._stop.set()
        self._thread.join(timeout=30)

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            try:
                self._look()
            except Unavailable as error:
                log.warning("the sweeps wait, for the database cannot be reached: %s", error)
            except Exception:  # the thread must outlive what nobody foresaw, such as a database that is not migrated yet
                log.exception("a look at the sweeps failed")

    def _look(self) -> None:
        found = sweeps.running_sweeps(self._running.database)
        self._known = {sweep.id: self._known.get(sweep.id, {}) for sweep in found}
        for sweep in found:
            if self._stop.is_set():
                return
            try:
                advance(self._running, sweep, self._known[sweep.id])
            except Unavailable:
                raise
            except Exception:  # one sweep that cannot be moved on must not hold up the others
                log.exception("sweep=%s could not be moved on", sweep.id)


def advance(running: Service, sweep: Sweep, known: dict[int, Trial] | None = None) -> None:
    """Do for one sweep what is to be done now. `known` keeps what of it can change no more from one call to the next."""
    from api import study  # optuna takes a second to import, and a service without sweeps never needs it

    tenant, database = Tenant(sweep.tenant), running.database
    search, _ = search_of(SweepSpec.model_validate(sweep.request))
    spec, every = search.spec, search.total
    trials = read_trials(database, tenant, sweep.id, search, known=known)
    for trial in study.unpromising(search, trials):
        assert trial.job is not None  # it runs
        if life.prune(database, tenant, trial.job):
            log.info("sweep=%s gave up trial %d", sweep.id, trial.number)
    try:
        while len(trials) < every + spec.seeds and sum(trial.is_busy for trial in trials) < spec.max_parallel:
            number = len(trials)
            if number < every and not _is_hopeless(trials):
                trials.append(_make(running, sweep, search, study.suggest(search, trials), number=number))
                continue
            if any(trial.outcome == "unfinished" and not trial.is_rerun for trial in trials):
                return
            best = best_of(search, trials)
            if best is None:
                sweeps.end_sweep(database, tenant, sweep.id, problem=_fruitless(trials))
                return
            seed = fresh_seed(spec.base.seed, number - every)
            trials.append(_make(running, sweep, search, best.params, number=number, seed=seed))
    except life.NotTheNext as other:
        log.info("sweep=%s is moved on by somebody else: %s", sweep.id, other)
        return
    except Problem as problem:  # too many queued jobs, for now
        log.info("sweep=%s waits: %s", sweep.id, problem)
        return
    best = best_of(search, trials)
    if best is not None and len(trials) == every + spec.seeds and not any(trial.outcome == "unfinished" for trial in trials):
        _end(running, sweep, trials, best, importances=study.importances(search, trials))


def fresh_seed(seed: int, ordinal: int) -> int:
    """The seed of one re-run: none of them is the base's."""
    return (seed + 1 + ordinal) % (_LAST_SEED + 1)


def _make(running: Service, sweep: Sweep, search: Search, params: Params, *, number: int, seed: int | None = None) -> Trial:
    """Submit one trial, or keep why it cannot be one. A Problem where it may work later."""
    tenant = Tenant(sweep.tenant)
    try:
        whole = search.spec_of(params)
        word = f"trial {number}" if seed is None else f"best, seed {seed}"
        name = f"{sweep.name or search.spec.base.name} ({word})".strip()
        whole = whole.model_copy(update={"name": name[-200:], "seed": whole.seed if seed is None else seed})
        job = submit(running, tenant, draft(running, tenant, whole), key=None, trial=(sweep.id, number))
    except (Refused, Problem) as wrong:
        if isinstance(wrong, Problem) and wrong.retryable:
            raise
        refusal = {**_refusal(wrong), "params": params}
    except (Unavailable, life.NotTheNext):
        raise
    except Exception:  # the same values would fail the same way at every look
        log.exception("sweep=%s trial %d could not be planned", sweep.id, number)
        refusal = {"where": "", "reason": "the service could not plan this job", "hint": "", "code": "internal_error", "params": params}
    else:
        read = search.params_of(job.spec)
        return Trial(
            number=number, is_rerun=seed is not None, job=job.id, state="queued", outcome="unfinished", params=read, seed=whole.seed
        )
    life.refuse(running.database, tenant, sweep.id, number, refusal)
    log.info("sweep=%s trial %d was refused: %s", sweep.id, number, refusal["reason"])
    return Trial(number=number, is_rerun=seed is not None, job=None, state=None, outcome="failed", params=params, problem=refusal)


def _refusal(wrong: Refused | Problem) -> dict[str, Any]:
    if isinstance(wrong, Refused):
        return {"where": wrong.where, "reason": wrong.reason, "hint": wrong.hint, "code": wrong.code}
    where = wrong.errors[0].pointer if wrong.errors else ""
    return {"where": where, "reason": wrong.detail, "hint": wrong.hint, "code": wrong.code}


def _is_hopeless(trials: Sequence[Trial]) -> bool:
    return len(trials) >= HOPELESS and all(trial.job is None for trial in trials)


def _fruitless(trials: Sequence[Trial]) -> dict[str, Any]:
    last = next((trial.problem for trial in reversed(trials) if trial.problem), None) or {}
    reason = f"none of {len(trials)} trials completed"
    if last:
        reason += f"; the last that failed: {last['reason']}"
    where = str(last.get("where", ""))
    return {
        "where": f"/base{where}" if where else "",
        "reason": reason,
        "hint": "GET /v1/sweeps/{id}/jobs says of each why; narrow the space, or mend the base",
        "code": "no_trial_completed",
    }


def _end(
    running: Service, sweep: Sweep, trials: Sequence[Trial], best: Trial, *, importances: tuple[dict[str, float] | None, str | None]
) -> None:
    tenant = Tenant(sweep.tenant)
    again = [trial for trial in trials if trial.is_rerun]
    done = [trial for trial in again if trial.outcome == "completed"]
    if not done:
        why = next((f": {trial.problem['reason']}" for trial in again if trial.problem), "")
        reason = f"the best trial ({best.number}) could not be confirmed: none of its {len(again)} re-runs completed{why}"
        problem = {"where": "/seeds", "reason": reason, "hint": f"its job is {best.job}", "code": "not_confirmed"}
        sweeps.end_sweep(running.database, tenant, sweep.id, problem=problem)
        return
    weights, reason_of_none = importances
    figures = [name for name in ("accuracy", "agreement") if any(name in trial.test for trial in done)]
    result = {
        "best": {"trial": best.number, "job": best.job, "params": best.params, "value": best.value, "seed": best.seed},
        "reruns": {
            **_spread([trial.value for trial in done if trial.value is not None]),
            "jobs": [trial.job for trial in done],
            "seeds": [trial.seed for trial in done],
            **{f"test_{name}": _spread([trial.test[name] for trial in done if name in trial.test]) for name in figures},
        },
        "importances": weights,
        "importances_reason": reason_of_none,
    }
    sweeps.end_sweep(running.database, tenant, sweep.id, result=result)


def _spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean and sample standard deviation; null where there are too few values for it."""
    return {
        "n": len(values),
        "mean": statistics.fmean(values) if values else None,
        "sd": statistics.stdev(values) if len(values) > 1 else None,
        "values": list(values),
    }
