import json
from pathlib import Path

import pytest

from retort.errors import Misused, Unreachable
from retort.session import find_service


@pytest.fixture(autouse=True)
def _nothing_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RETORT_URL", "RETORT_API_KEY", "RETORT_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def folder(path: Path) -> Path:
    path.mkdir()
    (path / "service.json").write_text(json.dumps({"url": "http://127.0.0.1:8000", "key": f"rt_{path.name}", "version": "0.1.0"}))
    return path


def test_options_win_over_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path / "retort-data")
    monkeypatch.setenv("RETORT_URL", "http://env")
    assert find_service("http://given", "rt_given", None) == ("http://given", "rt_given")


def test_the_environment_wins_over_the_folder_and_a_named_folder_over_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder(tmp_path / "retort-data")
    monkeypatch.setenv("RETORT_URL", "http://env")
    monkeypatch.setenv("RETORT_API_KEY", "rt_env")
    assert find_service(None, None, None) == ("http://env", "rt_env")
    assert find_service(None, None, folder(tmp_path / "named")) == ("http://127.0.0.1:8000", "rt_named")


def test_the_folder_of_this_place_or_of_the_environment_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path / "retort-data")
    assert find_service(None, None, None)[1] == "rt_retort-data"
    monkeypatch.setenv("RETORT_DATA", str(folder(tmp_path / "other")))
    assert find_service(None, None, None)[1] == "rt_other"


def test_a_folders_key_never_goes_to_another_address(tmp_path: Path) -> None:
    folder(tmp_path / "retort-data")
    assert find_service("http://127.0.0.1:8000/", None, None)[1] == "rt_retort-data"
    with pytest.raises(Misused, match="no key for http://elsewhere"):
        find_service("http://elsewhere", None, None)


def test_where_no_service_is_known_the_ways_to_one_are_named() -> None:
    with pytest.raises(Unreachable, match="no service is known") as caught:
        find_service(None, None, None)
    assert "retort up" in caught.value.hint


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (folder(tmp_path / "retort-data") / "service.json").write_text("{")
    with pytest.raises(Misused, match=r"service\.json"):
        find_service(None, None, None)
