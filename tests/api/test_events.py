"""What happens to a job: as a list, live, as curves, as a log, as attempts."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import httpx
import pytest

from api.settings import Settings
from db import life
from db.life import Claim
from db.session import Database
from tests.api.lab import Server, User, claim_of
from tests.api.test_jobs import block


@contextmanager
def stream(http: httpx.Client, job: str, *, last: int | None = None) -> Iterator[Iterator[dict[str, Any]]]:
    """A live stream as frames {"id", "event", "data", ...}; comments come as {"comment"}."""
    headers = {"Accept": "text/event-stream"} | ({} if last is None else {"Last-Event-ID": str(last)})
    with http.stream("GET", f"/v1/jobs/{job}/events", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert answer.headers["X-Accel-Buffering"] == "no"
        yield frames(answer.iter_lines())


def frames(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    frame: dict[str, Any] = {}
    for line in lines:
        if not line:
            yield frame
            frame = {}
            continue
        name, _, value = line.partition(": ")
        frame[name or "comment"] = json.loads(value) if name == "data" else value


def told(frames: Iterator[dict[str, Any]], n: int) -> list[dict[str, Any]]:
    """The next n events, without comments."""
    return list(islice((frame for frame in frames if "comment" not in frame), n))


@pytest.fixture
def claim(submitted: dict[str, Any], database: Database) -> Claim:
    """A job under the hands of a worker."""
    return claim_of(database, submitted["id"])


def test_the_history_is_a_list_of_numbered_events(http: httpx.Client, claim: Claim, database: Database) -> None:
    life.record(database, claim, [("phase", {"phase": "train", "fit": 0, "of": 18}), ("log", {"level": "info", "message": "hello"})])
    page = http.get(f"/v1/jobs/{claim.job.id}/events").json()
    assert [(event["id"], event["event"]) for event in page["data"]] == [
        (1, "job.status"), (2, "job.status"), (3, "job.progress"), (4, "job.log"),
    ]  # fmt: skip
    assert page["data"][3]["data"] == {"level": "info", "message": "hello"}
    assert page["data"][0]["at"].endswith("Z")
    first = http.get(f"/v1/jobs/{claim.job.id}/events?limit=3").json()
    assert (len(first["data"]), first["has_more"]) == (3, True)
    rest = http.get(f"/v1/jobs/{claim.job.id}/events?after=3").json()
    assert ([event["id"] for event in rest["data"]], rest["has_more"]) == ([4], False)
    assert http.get(f"/v1/jobs/{claim.job.id}/events?after={2**63}").status_code == 422


def test_a_live_stream_tells_what_was_and_what_happens_until_the_end(http: httpx.Client, claim: Claim, database: Database) -> None:
    with stream(http, claim.job.id) as live:
        assert [frame["id"] for frame in told(live, 2)] == ["1", "2"]
        life.record(database, claim, [block(first=1, last=2, of=18, loss=1.0)])
        [metric] = told(live, 1)
        assert (metric["id"], metric["event"], metric["data"]["columns"]["loss"]) == ("3", "job.metric", [1.0, 1.0])
        assert metric["data"]["at"].endswith("Z")
        life.complete(database, claim, result={})
        end = told(live, 9)
    assert [frame["event"] for frame in end] == ["job.status", "done"]
    assert end[-1]["data"] == {"status": "succeeded"}
    assert "id" not in end[-1]


def test_a_stream_is_taken_up_again_where_it_broke(http: httpx.Client, claim: Claim, database: Database) -> None:
    life.record(database, claim, [("log", {"level": "info", "message": str(i)}) for i in range(5)])
    with stream(http, claim.job.id, last=4) as live:
        assert [frame["id"] for frame in told(live, 3)] == ["5", "6", "7"]
    life.complete(database, claim, result={})
    with stream(http, claim.job.id, last=7) as live:
        assert [frame.get("id") for frame in told(live, 9)] == ["8", None]
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "8"}
    assert http.get(f"/v1/jobs/{claim.job.id}/events", headers=headers).status_code == 204


def test_a_silent_stream_says_that_it_lives(http: httpx.Client, claim: Claim) -> None:
    with stream(http, claim.job.id) as live:
        assert next(frame for frame in live if "comment" in frame)


def test_a_long_history_is_told_whole_to_many_listeners(http: httpx.Client, user: User, claim: Claim, database: Database) -> None:
    for start in range(0, 1200, 300):
        life.record(database, claim, [("log", {"level": "info", "message": str(start + i)}) for i in range(300)])
    seen: list[list[str]] = []

    def listen() -> None:
        with (
            httpx.Client(base_url=http.base_url, headers=user.headers, timeout=60, trust_env=False) as own,
            stream(own, claim.job.id) as live,
        ):
            seen.append([frame["id"] for frame in live if "id" in frame])

    listeners = [threading.Thread(target=listen) for _ in range(4)]
    for listener in listeners:
        listener.start()
    for start in range(0, 1200, 100):
        life.record(database, claim, [("log", {"level": "info", "message": str(start + i)}) for i in range(100)])
    life.complete(database, claim, result={})
    for listener in listeners:
        listener.join(60)
    assert seen == [[str(i) for i in range(1, 2404)]] * 4


def test_a_tenant_has_a_limit_of_streams(serve: Callable[[Settings], str], settings: Settings, user: User, claim: Claim) -> None:
    small = serve(settings.model_copy(update={"max_streams": 1}))
    with httpx.Client(base_url=small, headers=user.headers, timeout=30, trust_env=False) as http, stream(http, claim.job.id) as live:
        told(live, 1)
        second = http.get(f"/v1/jobs/{claim.job.id}/events", headers={"Accept": "text/event-stream"})
        assert (second.status_code, second.json()["code"]) == (429, "too_many_streams")


def test_a_server_that_stops_ends_its_streams(settings: Settings, user: User, claim: Claim) -> None:
    server = Server(settings)
    with httpx.Client(base_url=server.url, headers=user.headers, timeout=30, trust_env=False) as http, stream(http, claim.job.id) as live:
        told(live, 2)
        server.close()


def test_curves_are_columns_over_all_attempts(http: httpx.Client, claim: Claim, database: Database) -> None:
    path = f"/v1/jobs/{claim.job.id}/metrics"
    assert http.get(path).json() == {"columns": {}, "evaluated": []}
    life.record(database, claim, [block(first=1, last=4, of=18, loss=2.0, kd=1.0)])
    life.record(database, claim, [("evaluated", {"fit": 0, "epoch": 0, "done": 4, "split": "validation", "values": {"accuracy": 0.5}})])
    life.yield_(database, claim)
    again = claim_of(database, claim.job.id)
    life.record(database, again, [block(first=3, last=5, of=18, loss=3.0, kd=1.0)])
    told = http.get(path).json()
    assert told["columns"]["done"] == [1, 2, 3, 4, 5]
    assert told["columns"]["loss"] == [2.0, 2.0, 3.0, 3.0, 3.0]
    assert told["evaluated"][0]["values"] == {"accuracy": 0.5}
    assert http.get(f"{path}?keys=kd").json()["columns"].keys() == {"done", "epoch", "step", "kd"}
    assert http.get(f"{path}?keys=loss&max_points=4").json()["columns"]["loss"] == [2.0, 3.0]


def test_the_log_is_its_newest_lines(http: httpx.Client, claim: Claim, database: Database) -> None:
    for start in range(0, 1500, 500):
        life.record(database, claim, [("log", {"level": "info", "message": str(start + i)}) for i in range(500)])
    life.end_attempt(database, claim, exit_code=1, signal=None, max_rss=None, code=None, log_tail="Traceback\nValueError: no")
    log = http.get(f"/v1/jobs/{claim.job.id}/logs?tail=3").json()
    assert [line["message"] for line in log["data"]] == ["1497", "1498", "1499"]
    assert log["child"] == ["Traceback", "ValueError: no"]


def test_attempts_are_listed_with_their_ends(http: httpx.Client, claim: Claim, database: Database) -> None:
    life.end_attempt(database, claim, exit_code=None, signal=11, max_rss=1 << 30, code="native_crash", log_tail="")
    [attempt] = http.get(f"/v1/jobs/{claim.job.id}/attempts").json()["data"]
    assert {name: attempt[name] for name in ("fence", "worker", "signal", "code", "max_rss")} == {
        "fence": 1, "worker": "wrk_test", "signal": 11, "code": "native_crash", "max_rss": 1 << 30,
    }  # fmt: skip
    assert attempt["finished_at"] >= attempt["started_at"]
