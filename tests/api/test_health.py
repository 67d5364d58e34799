"""Whether the service lives, and whether it can work: each check by its name."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from api.settings import Settings
from tests.servers import free_port


def checks(url: str) -> tuple[int, dict[str, bool]]:
    answer = httpx.get(f"{url}/readyz", trust_env=False, timeout=30)
    return answer.status_code, {check["name"]: check["ok"] for check in answer.json()["checks"]}


def test_a_service_that_has_all_it_needs_is_ready(url: str) -> None:
    assert httpx.get(f"{url}/livez", trust_env=False).json() == {"status": "ok"}
    assert checks(url) == (200, {"database": True, "migrations": True, "broker": True, "storage": True, "blobs": True})


def test_health_and_version_need_no_key(url: str) -> None:
    answer = httpx.get(f"{url}/version", trust_env=False)
    assert answer.status_code == 200
    assert answer.json()["torch"]


def test_without_a_database_the_process_lives_and_is_not_ready(
    serve: Callable[[Settings], str], settings: Settings, tmp_path: Path
) -> None:
    url = serve(settings.model_copy(update={"database_url": f"sqlite:///{tmp_path}/no/such/folder.db"}))
    assert httpx.get(f"{url}/livez", trust_env=False).status_code == 200
    status, named = checks(url)
    assert status == 503
    assert (named["database"], named["migrations"], named["broker"]) == (False, False, True)


def test_without_a_migrated_database_it_is_not_ready(serve: Callable[[Settings], str], settings: Settings, empty_url: str) -> None:
    status, named = checks(serve(settings.model_copy(update={"database_url": empty_url})))
    assert status == 503
    assert not named["migrations"]


@pytest.mark.servers
def test_without_a_broker_it_is_not_ready(serve: Callable[[Settings], str], settings: Settings, redis_url: str) -> None:
    assert checks(serve(settings.model_copy(update={"broker_url": redis_url})))[0] == 200
    status, named = checks(serve(settings.model_copy(update={"broker_url": f"redis://127.0.0.1:{free_port()}/0"})))
    assert status == 503
    assert [name for name, ok in named.items() if not ok] == ["broker"]


def test_without_room_on_the_disk_it_is_not_ready(serve: Callable[[Settings], str], settings: Settings) -> None:
    status, named = checks(serve(settings.model_copy(update={"min_free": 1 << 60})))
    assert status == 503
    assert [name for name, ok in named.items() if not ok] == ["storage"]


def test_it_says_where_large_blobs_lie_and_is_not_ready_where_they_cannot(
    url: str, serve: Callable[[Settings], str], settings: Settings, tmp_path: Path
) -> None:
    assert told(url, "blobs") == (True, "all in the database")
    ok, detail = told(serve(settings.model_copy(update={"blobs": tmp_path / "blobs"})), "blobs")
    assert ok
    assert detail.startswith("large ones in a directory")
    (tmp_path / "file").write_text("no folder")
    assert told(serve(settings.model_copy(update={"blobs": tmp_path / "file"})), "blobs")[0] is False


def told(url: str, name: str) -> tuple[bool, str]:
    """What /readyz says of one thing."""
    found = {check["name"]: check for check in httpx.get(f"{url}/readyz", trust_env=False).json()["checks"]}
    return found[name]["ok"], found[name]["detail"]
