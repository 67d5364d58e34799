import json
import socket

import pytest

from retort.connection import Connection, pause
from retort.errors import ApiError, Unreachable
from tests.retort.stage import Answer, script, stage

BUSY = Answer(503, b'{"code": "unavailable", "detail": "later"}', "application/problem+json", {"Retry-After": "0"})
GOOD = Answer(200, b'{"ok": true}')
GONE = Answer(hang_up=True)


@pytest.mark.parametrize("trouble", [BUSY, GONE])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_a_request_that_may_be_repeated_is_repeated(method: str, trouble: Answer) -> None:
    with stage(script(trouble, trouble, GOOD)) as service:
        assert Connection(service.url, key="rt_k").request(method, "/v1/x") == {"ok": True}
    assert len(service.requests) == 3


@pytest.mark.parametrize(("trouble", "error"), [(BUSY, ApiError), (GONE, Unreachable)])
def test_a_post_that_the_service_would_not_know_again_goes_out_once(trouble: Answer, error: type[Exception]) -> None:
    with stage(script(trouble, GOOD)) as service, pytest.raises(error):
        Connection(service.url, key="rt_k").request("POST", "/v1/uploads", body={})
    assert len(service.requests) == 1


def test_an_action_is_repeated_under_one_idempotency_key() -> None:
    with stage(script(GONE, BUSY, GOOD)) as service:
        connection = Connection(service.url, key="rt_k")
        connection.act("/v1/jobs", {"seed": 1})
        connection.act("/v1/jobs", {"seed": 1})
    first, second, third, other = service.requests
    keys = [each.headers["idempotency-key"] for each in (first, second, third)]
    assert len(set(keys)) == 1
    assert other.headers["idempotency-key"] != keys[0]
    assert [json.loads(each.body) for each in service.requests] == [{"seed": 1}] * 4


def test_an_answer_under_way_for_the_same_key_is_waited_for() -> None:
    busy = Answer(409, b'{"detail": "the first is still running"}', headers={"Retry-After": "0"})
    with stage(script(busy, GOOD)) as service:
        assert Connection(service.url, key="").act("/v1/jobs", {}) == {"ok": True}


def test_a_problem_is_mirrored() -> None:
    problem = {
        "status": 422, "code": "invalid_input", "title": "No", "detail": "methods/0: too hot", "hint": "1 to 100", "fault": "user",
        "request_id": "req_1", "errors": [{"pointer": "/methods/0/temperature", "code": "less_than", "detail": "too hot"}],
    }  # fmt: skip
    with stage(script(Answer(422, json.dumps(problem).encode(), "application/problem+json"))) as service, pytest.raises(ApiError) as caught:
        Connection(service.url, key="").request("GET", "/v1/jobs/job_1")
    error = caught.value
    assert (error.status, error.code, error.hint, error.fault, error.request_id) == (422, "invalid_input", "1 to 100", "user", "req_1")
    assert str(error) == "methods/0: too hot"
    assert [(each.pointer, each.code) for each in error.errors] == [("/methods/0/temperature", "less_than")]


def test_an_error_that_is_no_problem_document_still_says_what_came() -> None:
    with (
        stage(script(Answer(404, b"<h1>nothing here</h1>", "text/html"))) as service,
        pytest.raises(ApiError, match="nothing here") as caught,
    ):
        Connection(service.url, key="").request("GET", "/v1/jobs")
    assert caught.value.status == 404


def test_a_page_that_is_not_json_is_not_taken_for_an_answer() -> None:
    with stage(script(Answer(200, b"<html>", "text/html"))) as service, pytest.raises(Unreachable, match="not JSON"):
        Connection(service.url, key="").request("GET", "/v1/jobs")


def test_nothing_listening_is_unreachable_and_names_the_address() -> None:
    with socket.socket() as held:  # bound and not listening: nobody else can take the port meanwhile
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(Unreachable, match=url):
            Connection(url, key="", retries=1).request("GET", "/v1/jobs")


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://localhost", "http://[", "nonsense"])
def test_an_address_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(Unreachable, match=r"address|reach"):
        Connection(url, key="").request("GET", "/v1/jobs")


def test_lists_are_read_page_by_page_up_to_the_limit() -> None:
    pages = [
        {"data": [{"id": 1}, {"id": 2}], "has_more": True, "next_cursor": "b"},
        {"data": [{"id": 3}], "has_more": False, "next_cursor": None},
    ]
    with stage(script(*(Answer(200, json.dumps(page).encode()) for page in pages))) as service:
        assert [each["id"] for each in Connection(service.url, key="").pages("/v1/jobs")] == [1, 2, 3]
    assert "after=b" in service.requests[1].path
    with stage(script(Answer(200, json.dumps(pages[0]).encode()))) as service:
        assert len(list(Connection(service.url, key="").pages("/v1/jobs", limit=2))) == 2
    assert len(service.requests) == 1
    assert "limit=2" in service.requests[0].path


def test_pauses_double_up_to_eight_seconds_and_follow_what_was_asked() -> None:
    assert all(0.25 <= pause(0) <= 0.3125 for _ in range(20))
    assert all(8 <= pause(20) <= 10 for _ in range(20))
    assert all(2 <= pause(0, 2.0) <= 2.5 for _ in range(20))
    assert pause(0, 3600.0) <= 37.5


def test_a_service_that_never_answered_is_given_up_soon_and_one_that_did_is_waited_for() -> None:
    with stage(script(GONE)) as service, pytest.raises(Unreachable):
        Connection(service.url, key="").request("GET", "/v1/jobs")
    assert len(service.requests) == 3
    with stage(script(GOOD, GONE, GONE, GONE, GOOD)) as service:
        connection = Connection(service.url, key="")
        connection.request("GET", "/v1/jobs")
        assert connection.request("GET", "/v1/jobs") == {"ok": True}
