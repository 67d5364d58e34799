"""The embedded broker: what a reader finds is whole, and what is not whole ends nobody.

Each test has a queue of its own: kombu remembers for the whole process which queues are bound.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from kombu import Connection

from db.broker import Transport


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Any]:
    folders = {f"data_folder_{way}": str(tmp_path / "messages") for way in ("in", "out")}
    (tmp_path / "messages").mkdir()
    with Connection(
        "filesystem://", transport=Transport, transport_options={**folders, "control_folder": str(tmp_path / "control")}
    ) as opened:
        yield opened


def test_messages_arrive_in_their_order(connection: Any) -> None:
    queue = connection.SimpleQueue("first")
    for number in range(5):
        queue.put({"number": number})
    assert [queue.get(timeout=5).payload["number"] for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(Empty):
        queue.get_nowait()


def test_a_file_that_is_no_message_is_dropped_and_the_next_one_is_read(connection: Any, tmp_path: Path) -> None:
    queue = connection.SimpleQueue("second")
    (tmp_path / "messages" / f"{0:020d}_cut.second.msg").touch()
    queue.put("whole")
    with pytest.raises(Empty):
        queue.get_nowait()
    assert queue.get(timeout=5).payload == "whole"


def test_whoever_looks_at_any_moment_sees_only_whole_messages(connection: Any, tmp_path: Path) -> None:
    queue = connection.SimpleQueue("third")
    is_over, sizes = threading.Event(), list[int]()

    def look() -> None:
        while not is_over.is_set():
            for file in (tmp_path / "messages").iterdir():
                sizes.append(file.stat().st_size)
                file.unlink()

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        for _ in range(300):
            queue.put("x" * 1000)
        is_over.set()
        looking.result()
    assert len(sizes) > 10
    assert min(sizes) > 1000
