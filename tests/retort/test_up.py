"""`retort up`: its named answers, and that nothing of it is ever left."""

import json
import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from retort import Client
from retort.folder import Folder
from retort.up import Child, ChildDied, _kept
from tests.retort.service import Up, call, processes_of, up, wait_until

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for left processes in /proc")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with up(tmp_path_factory.mktemp("served") / "data") as service:
        yield service


def test_the_first_key_lies_in_a_file_that_only_its_owner_can_read(served: Up) -> None:
    file = served.folder / "service.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE((served.folder / "retort.db").stat().st_mode) == 0o600
    known = json.loads(file.read_text())
    assert known["url"] == served.url
    with Client(known["url"], key=known["key"]) as client:
        assert client.me()["object"] == "tenant"


def test_the_commands_find_it_by_its_folder(served: Up) -> None:
    listed = call("ls", "--json", env={"RETORT_DATA": str(served.folder)})
    assert listed.returncode == 0
    assert json.loads(listed.stdout) == {"object": "list", "data": []}


def test_a_second_up_in_one_folder_is_told_so(served: Up) -> None:
    second = call("up", str(served.folder), "--port", "0")
    assert second.returncode == 2
    assert f"{served.folder} is already served by process {served.process.pid}" in second.stderr
    with Client(served.url, key=json.loads((served.folder / "service.json").read_text())["key"]) as client:
        assert client.me()


def test_a_port_in_use_is_told_with_another_to_try(tmp_path: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        ended = call("up", str(tmp_path / "data"), "--port", str(port))
    assert ended.returncode == 2
    assert f"port {port} cannot be used" in ended.stderr
    assert f"--port {port + 1}" in ended.stderr


def test_a_folder_below_a_file_or_full_of_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    below = call("up", str(tmp_path / "file" / "data"))
    assert (below.returncode, "cannot write in" in below.stderr) == (2, True)
    other = call("up", str(tmp_path))
    assert (other.returncode, "holds other things (file)" in other.stderr) == (2, True)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_folder_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "service.json").write_text(json.dumps({"url": "http://127.0.0.1:1", "key": "rt_x", "version": "99.0.0"}))
    ended = call("up", str(tmp_path))
    assert ended.returncode == 2
    assert "made by Retort 99.0.0; this is" in ended.stderr
    assert not (tmp_path / "retort.db").exists()


def test_a_database_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "retort.db") as database:
        database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
        database.execute("INSERT INTO alembic_version VALUES ('from_the_future')")
    database.close()
    ended = call("up", str(tmp_path), "--port", "0")
    assert ended.returncode == 2
    assert "from_the_future" in ended.stderr
    assert processes_of(tmp_path) == {}


def test_a_folder_lives_through_every_way_to_end_and_no_process_does(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with up(folder) as service:
        assert len(processes_of(folder)) >= 3
        code, told = service.ends(signal.SIGINT)
        assert (code, "stopped" in told, processes_of(folder)) == (0, True, {})

    made_by_this = json.loads((folder / "service.json").read_text())
    (folder / "service.json").write_text(json.dumps({**made_by_this, "version": "0.0.9"}))
    with up(folder) as service:  # of an older version: brought to this one, and the key still works
        assert json.loads((folder / "service.json").read_text()) == {**made_by_this, "url": service.url}
        with Client(service.url, key=made_by_this["key"]) as client:
            client.keys.revoke(client.keys.list()[0]["id"])
        code, told = service.ends(signal.SIGTERM)
        assert (code, "stopped" in told, processes_of(folder)) == (0, True, {})

    with up(folder) as service:  # its key was revoked: there is a new one
        renewed = json.loads((folder / "service.json").read_text())["key"]
        with Client(service.url, key=renewed) as client:
            assert client.me()
        assert renewed != made_by_this["key"]
        service.ends(signal.SIGKILL)
        wait_until(lambda: processes_of(folder) == {})


def test_a_worker_that_ends_to_be_started_again_is_started_again_at_a_steady_pace(tmp_path: Path) -> None:
    folder, said = Folder(tmp_path / "data"), list[str]()
    folder.prepare()

    def ended(code: int, *, started: float) -> Child:
        process = subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"])
        process.wait()
        return Child("worker", process, folder.logs / "worker.log", started)

    young, old = ended(70, started=time.monotonic()), ended(70, started=time.monotonic() - 31)
    assert _kept(young, folder, {}, said.append) is young
    assert said == []
    successor = _kept(old, folder, {}, said.append)
    assert successor.process.args == [sys.executable, "-m", "worker"]
    assert successor.started > old.started
    assert str(successor.log) in said[0]
    assert successor.process.wait() == 1  # nobody told it where its database is
    with pytest.raises(ChildDied):
        _kept(successor, folder, {}, said.append)


@pytest.mark.parametrize("part", ["worker", "api"])
def test_a_part_that_dies_is_named_with_its_log_and_takes_the_rest_along(part: str, tmp_path: Path) -> None:
    with up(tmp_path / "data") as service:
        (victim,) = (pid for pid, words in processes_of(service.folder).items() if words.endswith(f"-m {part}"))
        os.kill(victim, signal.SIGKILL)
        _, told = service.process.communicate(timeout=90)
        assert service.process.returncode == 1
        assert f"the {part} was killed by SIGKILL" in told
        assert str(service.folder / "logs" / f"{part}.log") in told
        assert "Traceback" not in told
        assert processes_of(service.folder) == {}
