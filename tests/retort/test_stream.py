import json
from collections.abc import Callable

from retort.connection import Connection
from retort.stream import follow, frames
from tests.retort.stage import Answer, Request, stage

ALL = {seq: ("job.log", {"message": str(seq), "at": "2026-01-01T00:00:00Z"}) for seq in range(1, 8)}


def frame(seq: int) -> bytes:
    kind, data = ALL[seq]
    return f"id: {seq}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()


def history(streams: Callable[[int], list[bytes] | None]) -> Callable[[Request], Answer]:
    """A service whose stream says what `streams` gives for a Last-Event-ID, and has no stream where that is None."""

    def play(request: Request) -> Answer:
        if request.path.endswith("/events") and "event-stream" in request.headers.get("accept", ""):
            pieces = streams(int(request.headers["last-event-id"]))
            if pieces is not None:
                return Answer(200, pieces, "text/event-stream")
        if "/events" in request.path:
            after = int(request.path.partition("after=")[2].partition("&")[0] or 0)
            rows = [{"id": seq, "event": kind, "at": data["at"], "data": {"message": data["message"]}} for seq, (kind, data) in ALL.items()]
            page = [row for row in rows if int(str(row["id"])) > after][:3]
            return Answer(200, json.dumps({"data": page, "has_more": after + 3 < 7}).encode())
        return Answer(200, json.dumps({"is_terminal": True}).encode())

    return play


def seen(play: Callable[[Request], Answer], *, after: int = 0) -> tuple[list[int], list[str]]:
    with stage(play) as service:
        events = list(follow(Connection(service.url, key="k"), "job_1", after=after, poll=0.01))
    assert all(event.data["message"] == str(event.id) and event.at for event in events)
    return [event.id for event in events], [request.headers.get("last-event-id", "-") for request in service.requests]


def test_a_stream_is_read_to_its_end() -> None:
    ids, _ = seen(history(lambda last: [b"retry: 3000\n\n", *(frame(each) for each in range(last + 1, 8)), b"event: done\ndata: {}\n\n"]))
    assert ids == [1, 2, 3, 4, 5, 6, 7]


def test_a_broken_stream_is_taken_up_where_it_stopped() -> None:
    def streams(last: int) -> list[bytes]:
        if last == 0:
            return [frame(1), frame(2), frame(3)[:20]]
        return [b": ping\n\n", *(frame(each) for each in range(last, 8)), b"event: done\ndata: {}\n\n"]  # tells the last one twice

    ids, last = seen(history(streams))
    assert ids == [1, 2, 3, 4, 5, 6, 7]
    assert last == ["0", "2"]


def test_a_stream_that_brings_nothing_gives_way_to_pages() -> None:
    ids, last = seen(history(lambda last: [frame(1)] if last == 0 else []))
    assert ids == [1, 2, 3, 4, 5, 6, 7]
    assert last[:4] == ["0", "1", "1", "-"]


def test_a_service_without_streams_is_asked_for_pages() -> None:
    assert seen(history(lambda last: None))[0] == [1, 2, 3, 4, 5, 6, 7]


def test_events_from_a_place_on_are_only_those_after_it() -> None:
    assert seen(history(lambda last: None), after=5)[0] == [6, 7]


def test_data_over_several_lines_and_without_a_space_is_read() -> None:
    (one,) = frames(["id:9", "event:job.log", "data:{", "data: }", ""])
    assert (one.id, one.event, "\n".join(one.data)) == ("9", "job.log", "{\n}")
