"""What may be asked of a job, in every state: exactly what its `actions` say, and a refusal names what to do instead."""

from functools import partial
from typing import Any

import httpx
import pytest

from db import life
from db.access import Tenant
from db.session import Database
from db.states import Kind
from tests.api.lab import ONE_DATABASE, STUDENT, Lab, User, claim_of
from tests.db.given import IN_EACH_STATE, PROBLEM, remove_every_open_job, reread, running, uploaded

pytestmark = ONE_DATABASE

WISHES = ("pause", "resume", "cancel", "release", "retry", "clone")


def _cancelling_gracefully(db: Database, tenant: Tenant, **changes: Any) -> life.Claim:
    claim = running(db, tenant, **changes)
    life.cancel(db, tenant, claim.job.id, mode="graceful")
    return claim


STATES = {**IN_EACH_STATE, "running, cancel gracefully": _cancelling_gracefully}


@pytest.mark.parametrize("kind", ["distil", "inspect", "export"])
def test_the_actions_of_a_job_are_exactly_the_wishes_that_would_be_granted(
    http: httpx.Client, user: User, lab: Lab, database: Database, kind: Kind
) -> None:
    spec = http.post("/v1/jobs", json=lab.spec()).json()["spec"]
    remove_every_open_job(database)
    changes = {} if kind == "inspect" else {"spec": spec}
    for state, make in STATES.items():
        told, granted = set(), set()
        for wish in WISHES:
            job = make(database, user.tenant, kind=kind, **changes).job
            path, before = f"/v1/jobs/{job.id}", reread(database, job)
            told.add(tuple(http.get(path).json()["actions"]))
            answer = http.post(f"{path}/{wish}")
            after = reread(database, job)
            if answer.status_code == 201 or after != before:
                granted.add(wish)
                assert answer.is_success, answer.text
            elif answer.status_code == 409:
                problem = answer.json()
                assert (problem["code"], problem["current_status"]) == ("not_applicable", http.get(path).json()["status"])
                assert problem["hint"] or kind == "export"
            else:
                assert answer.is_success, answer.text  # it is as wished already
            if wish not in ("retry", "clone") and answer.is_success:
                assert http.post(f"{path}/{wish}").is_success
                assert reread(database, job) == after
            remove_every_open_job(database)
        (actions,) = told
        assert (state, sorted(actions)) == (state, sorted(granted))


def test_an_inspection_whose_asset_is_gone_has_nothing_to_be_asked(http: httpx.Client, lab: Lab) -> None:
    created = http.post("/v1/architectures", json={"name": "s", "architecture": STUDENT}).json()
    assert http.delete(f"/v1/architectures/{created['id']}").is_success
    path = f"/v1/jobs/{created['job']}"
    assert (http.get(path).json()["status"], http.get(path).json()["actions"]) == ("cancelled", [])
    refused = http.post(f"{path}/retry")
    assert (refused.status_code, refused.json()["hint"]) == (409, "create the asset again")


@pytest.mark.parametrize(
    ("state", "wish", "words"),
    [
        ("quarantined", "retry", "release"),
        ("quarantined", "pause", "release"),
        ("running", "retry", "clone"),
        ("paused", "retry", "resume"),
        ("paused", "release", "resume"),
        ("running, cancel", "resume", "once it is cancelled"),
        ("failed", "resume", "retry"),
        ("cancelled", "release", "retry"),
        ("succeeded", "retry", "clone"),
    ],
)
def test_a_refusal_says_what_to_do_instead(
    http: httpx.Client, user: User, database: Database, *, state: str, wish: str, words: str
) -> None:
    job = IN_EACH_STATE[state](database, user.tenant).job
    refused = http.post(f"/v1/jobs/{job.id}/{wish}")
    assert refused.status_code == 409
    assert words in refused.json()["hint"]


def test_a_cancel_says_how_and_a_harder_one_is_taken(http: httpx.Client, user: User, database: Database) -> None:
    claim = running(database, user.tenant)
    life.keep_checkpoint(database, claim, blob=uploaded(database, user.tenant), done=7, fit=0, step=7, values={})
    path = f"/v1/jobs/{claim.job.id}/cancel"
    for body, mode, keep in (
        ({"mode": "graceful"}, "graceful", "checkpoint"),
        ({"mode": "graceful", "keep": "nothing"}, "graceful", "nothing"),
        (None, "now", "nothing"),
    ):
        answer = http.post(path, json=body)
        assert (answer.status_code, answer.json()["status"]) == (202, "cancelling")
        job = reread(database, claim.job)
        assert (job.cancel_mode, job.cancel_keep) == (mode, keep)
    life.yield_(database, claim)
    assert http.post(path).json()["status"] == "cancelled"
    new = http.post(f"/v1/jobs/{claim.job.id}/retry").json()
    assert new["checkpoint_step"] is None


@pytest.mark.parametrize(
    ("wish", "body", "pointer"),
    [
        ("cancel", {"mode": "kindly"}, "/mode"),
        ("cancel", {"keep": "all"}, "/keep"),
        ("cancel", {"mood": "now"}, "/mood"),
        ("retry", {"from": "middle"}, "/from"),
        ("clone", {"overrides": [1]}, "/overrides"),
        ("clone", {"seed": 1}, "/seed"),
    ],
)
def test_a_wish_that_cannot_be_read_is_refused_by_its_field(
    http: httpx.Client, user: User, database: Database, *, wish: str, body: dict[str, Any], pointer: str
) -> None:
    job = IN_EACH_STATE["cancelled" if wish == "retry" else "queued"](database, user.tenant).job
    before = reread(database, job)
    refused = http.post(f"/v1/jobs/{job.id}/{wish}", json=body)
    assert refused.status_code == 422
    assert [each["pointer"] for each in refused.json()["errors"]] == [pointer]
    assert reread(database, job) == before


def test_a_retry_begins_where_it_is_told_to(http: httpx.Client, user: User, database: Database) -> None:
    claim = running(database, user.tenant)
    life.keep_checkpoint(database, claim, blob=uploaded(database, user.tenant), done=7, fit=0, step=7, values={})
    life.fail(database, claim, code="diverged", problem=PROBLEM)
    for body, done in ((None, 7), ({"from": "checkpoint"}, 7), ({"from": "start"}, None)):
        new = http.post(f"/v1/jobs/{claim.job.id}/retry", json=body)
        assert (new.status_code, new.json()["parent"]) == (201, claim.job.id)
        assert new.json()["checkpoint_step"] == done


@pytest.mark.parametrize(("wish", "body", "other"), [("retry", {}, {"from": "start"}), ("clone", {}, {"overrides": {"seed": 5}})])
def test_a_new_job_of_an_old_one_is_one_job_for_one_key(
    http: httpx.Client, submitted: dict[str, Any], wish: str, body: dict[str, Any], other: dict[str, Any]
) -> None:
    path = f"/v1/jobs/{submitted['id']}"
    http.post(f"{path}/cancel")
    send = partial(http.post, f"{path}/{wish}", headers={"Idempotency-Key": "once"})
    first, again = send(json=body), send(json=body)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json()["id"] == again.json()["id"] != submitted["id"]
    assert again.headers["Location"] == f"/v1/jobs/{first.json()['id']}"
    assert (send(json=other).status_code, send(json=other).json()["code"]) == (422, "key_reused")
    submit = http.post("/v1/jobs", json=submitted["spec"], headers={"Idempotency-Key": "once"})
    assert submit.json()["code"] == "key_reused"  # the same spec, but another request


def test_the_attempts_of_a_job_show_their_last_lines_where_they_are_asked_for(
    http: httpx.Client, submitted: dict[str, Any], database: Database
) -> None:
    for tail in ("one\ntwo\nthree", "four"):
        claim = claim_of(database, submitted["id"])
        life.end_attempt(database, claim, exit_code=None, signal=11, max_rss=1 << 20, code="native_crash", log_tail=tail)
        life.retry(database, claim, code="native_crash", problem=PROBLEM, backoff=0, max_crashes=3)
    path = f"/v1/jobs/{submitted['id']}/attempts"
    assert [each["lines"] for each in http.get(path).json()["data"]] == [[], []]
    first, second = http.get(path, params={"lines": 2}).json()["data"]
    assert (first["lines"], second["lines"]) == (["two", "three"], ["four"])
    assert (first["fence"], first["signal"], first["exit_code"], first["max_rss"], first["code"]) == (1, 11, None, 1 << 20, "native_crash")
    assert first["worker"]
    assert first["finished_at"] >= first["started_at"]
