"""The proxy fails as it is told to, before a real Redis and a real PostgreSQL."""

import socket
import time
import uuid
from collections.abc import Iterator

import psycopg
import pytest

from tests.chaos.proxy import Proxy, Way, proxied

pytestmark = pytest.mark.servers

PING, PONG = b"PING\r\n", b"+PONG\r\n"
PATIENCE = 30.0


@pytest.fixture
def proxy(redis_url: str) -> Iterator[Proxy]:
    """Before Redis."""
    with proxied(redis_url) as proxy:
        yield proxy


@pytest.fixture
def line(proxy: Proxy) -> Iterator[socket.socket]:
    """A connection by way of the proxy that has been answered once."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE) as line:
        assert asked(line, PING) == PONG
        yield line


def asked(line: socket.socket, question: bytes) -> bytes:
    line.sendall(question)
    return line.recv(1024)


def received_until_reset(line: socket.socket) -> bytes:
    received = b""
    try:
        while data := line.recv(1024):
            received += data
    except ConnectionResetError:
        return received
    pytest.fail("the connection ended instead of being reset")


def fresh(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE)


def value(redis_url: str, key: str) -> bytes:
    """What Redis holds, asked without the proxy."""
    host, _, port = redis_url.rpartition("/")[0].rpartition("/")[2].partition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as line:
        return asked(line, f"GET {key}\r\n".encode())


def test_while_it_is_down_nobody_listens_and_afterwards_somebody_does_again(proxy: Proxy, line: socket.socket) -> None:
    proxy.switch("down")
    with pytest.raises(ConnectionResetError):
        line.recv(1)
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            fresh(proxy)
    proxy.switch("pass")
    with fresh(proxy) as again:
        assert asked(again, PING) == PONG


def test_connections_are_reset_and_new_ones_too(proxy: Proxy, line: socket.socket) -> None:
    proxy.switch("reset")
    with pytest.raises(ConnectionResetError):
        line.recv(1)
    with pytest.raises(ConnectionResetError), fresh(proxy) as another:  # it may meet the reset while it still connects
        another.recv(1)


def test_a_blackhole_accepts_and_holds_and_what_it_held_arrives_late(proxy: Proxy, line: socket.socket) -> None:
    proxy.switch("blackhole")
    with fresh(proxy) as another:
        for each in (line, another):
            each.sendall(PING)
            each.settimeout(0.3)
            with pytest.raises(TimeoutError):
                each.recv(1)
        proxy.switch("pass")
        for each in (line, another):
            each.settimeout(PATIENCE)
            assert each.recv(1024) == PONG


def test_a_blackhole_of_one_way_lets_the_question_through(proxy: Proxy, line: socket.socket, redis_url: str) -> None:
    key = uuid.uuid4().hex
    proxy.switch("blackhole", way="down")
    line.sendall(f"INCR {key}\r\n".encode())
    deadline = time.monotonic() + PATIENCE
    while value(redis_url, key) != b"$1\r\n1\r\n":
        assert time.monotonic() < deadline
    line.settimeout(0.3)
    with pytest.raises(TimeoutError):
        line.recv(1)


def test_latency_delays_each_way_by_itself(proxy: Proxy, line: socket.socket) -> None:
    delays: list[tuple[Way | None, float]] = [(None, 0.4), ("up", 0.2)]
    for way, least in delays:
        proxy.switch("latency", 0.2, way=way)
        begun = time.monotonic()
        assert asked(line, PING) == PONG
        assert time.monotonic() - begun >= least  # a least time, which a slow machine keeps too


def test_a_limit_lets_so_many_bytes_through_and_then_resets(proxy: Proxy, line: socket.socket) -> None:
    proxy.switch("limit", 10, way="down")
    assert asked(line, PING) == PONG  # seven bytes
    line.sendall(PING)
    received = received_until_reset(line)
    assert PONG.startswith(received)  # what of the last three had not been read may go with the reset
    assert len(received) <= 3


def test_a_dropped_reply_means_that_it_was_done_and_nobody_knows(proxy: Proxy, line: socket.socket, redis_url: str) -> None:
    key = uuid.uuid4().hex
    proxy.switch("drop replies")
    with pytest.raises(ConnectionResetError):
        asked(line, f"INCR {key}\r\n".encode())
    assert value(redis_url, key) == b"$1\r\n1\r\n"


@pytest.fixture
def table(postgres_url: str) -> Iterator[str]:
    """A table of one column of text, and its name."""
    name = f"t_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE TABLE {name} (word text)")
        yield name
        connection.execute(f"DROP TABLE {name}")


@pytest.fixture
def before_postgres(postgres_url: str) -> Iterator[Proxy]:
    """Before PostgreSQL."""
    with proxied(postgres_url) as proxy:
        yield proxy


def by_way_of(proxy: Proxy, postgres_url: str) -> psycopg.Connection:
    return psycopg.connect(proxy.url(postgres_url), connect_timeout=30)


def words(postgres_url: str, table: str) -> list[str]:
    with psycopg.connect(postgres_url) as connection:
        return [word for (word,) in connection.execute(f"SELECT word FROM {table} ORDER BY word")]


@pytest.mark.parametrize("executed", [True, False])
def test_a_commit_is_struck_and_its_outcome_is_unknown_to_the_client(
    before_postgres: Proxy, postgres_url: str, table: str, executed: bool
) -> None:
    before_postgres.strike(b"struck", executed=executed)
    with by_way_of(before_postgres, postgres_url) as connection:
        connection.execute(f"INSERT INTO {table} VALUES (%s)", ["spared"])
        connection.commit()
        connection.execute(f"INSERT INTO {table} VALUES (%s)", ["struck"])
        with pytest.raises(psycopg.OperationalError):
            connection.commit()
    assert before_postgres.struck == 1
    assert words(postgres_url, table) == ["spared", *(["struck"] if executed else [])]
    with by_way_of(before_postgres, postgres_url) as connection:  # one strike was ordered, and it is spent
        connection.execute(f"INSERT INTO {table} VALUES (%s)", ["struck"])
    assert words(postgres_url, table).count("struck") == (2 if executed else 1)


def test_a_prepared_statement_is_known_by_its_name(before_postgres: Proxy, postgres_url: str, table: str) -> None:
    with by_way_of(before_postgres, postgres_url) as connection:
        for i in range(20):  # psycopg prepares it after five, and sends its text no more
            connection.execute(f"INSERT INTO {table} VALUES (%s)", [f"{i:02}"])
            connection.commit()
        before_postgres.strike(f"INSERT INTO {table}".encode())
        connection.execute(f"INSERT INTO {table} VALUES (%s)", ["last"])
        with pytest.raises(psycopg.OperationalError):
            connection.commit()
    assert words(postgres_url, table)[-1] == "last"


@pytest.mark.parametrize("extended", [True, False], ids=["extended", "simple"])
def test_a_commit_is_known_in_both_protocols(before_postgres: Proxy, postgres_url: str, table: str, extended: bool) -> None:
    with psycopg.connect(before_postgres.url(postgres_url), autocommit=True) as connection:
        connection.execute("BEGIN", prepare=extended)
        connection.execute(f"INSERT INTO {table} VALUES ('struck')", prepare=extended)
        before_postgres.strike(b"struck")
        with pytest.raises(psycopg.OperationalError):
            connection.execute("COMMIT", prepare=extended)
    assert words(postgres_url, table) == ["struck"]


def test_a_rolled_back_transaction_is_no_reason_to_strike_the_next(before_postgres: Proxy, postgres_url: str, table: str) -> None:
    before_postgres.strike(b"struck")
    with by_way_of(before_postgres, postgres_url) as connection:
        connection.execute(f"INSERT INTO {table} VALUES (%s)", ["struck"])
        connection.rollback()
        connection.execute(f"INSERT INTO {table} VALUES (%s)", ["spared"])
        connection.commit()
    assert (before_postgres.struck, words(postgres_url, table)) == (0, ["spared"])
