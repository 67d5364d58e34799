import hashlib
from pathlib import Path

import pytest

from retort import Artifact, Client, Corrupted, Unreachable
from tests.retort.stage import Answer, script, stage

BYTES = bytes(range(256)) * 100


def artifact(name: str = "model.safetensors", content: bytes = BYTES) -> Artifact:
    return Artifact(id="art_1", name=name, format="safetensors", bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), raw={})


def test_a_download_gets_its_name_once_it_is_whole(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    with stage(script(Answer(200, BYTES, "application/octet-stream"))) as service:
        path = Client(service.url, key="k").artifacts.download(artifact(), tmp_path / "new", progress=lambda *each: told.append(each))
    assert path == tmp_path / "new" / "model.safetensors"
    assert path.read_bytes() == BYTES
    assert [each.name for each in path.parent.iterdir()] == ["model.safetensors"]
    assert told[-1] == (len(BYTES), len(BYTES))


def test_bytes_that_are_not_what_was_promised_never_get_the_name(tmp_path: Path) -> None:
    with stage(script(Answer(200, b"x" + BYTES[1:]))) as service, pytest.raises(Corrupted, match="promised"):
        Client(service.url, key="k").artifacts.download(artifact(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_broke_off_is_taken_up_again(tmp_path: Path) -> None:
    half = Answer(200, BYTES[:1000], headers={"Content-Length": str(len(BYTES))})
    with stage(script(half, Answer(200, BYTES))) as service:
        assert Client(service.url, key="k").artifacts.download(artifact(), tmp_path).read_bytes() == BYTES
    assert [each.name for each in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_download_that_always_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    half = Answer(200, BYTES[:1000], headers={"Content-Length": str(len(BYTES))})
    with stage(script(half)) as service, pytest.raises(Unreachable):
        Client(service.url, key="k").artifacts.download(artifact(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_already_is_not_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(BYTES)
    with stage(script(Answer(500))) as service:
        Client(service.url, key="k").artifacts.download(artifact(), tmp_path)
    assert service.requests == []


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "", "..\\evil"])
def test_a_name_that_leads_out_of_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    with stage(script(Answer(200, BYTES))) as service, pytest.raises(Corrupted, match="outside"):
        Client(service.url, key="k").artifacts.download(artifact(name), tmp_path / "to")
    assert list(tmp_path.iterdir()) == []
