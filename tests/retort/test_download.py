import hashlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retort import ApiError, Artifact, Client, Corrupted, Unreachable
from retort.download import write_sums
from tests.retort.stage import Answer, Request, script, stage

BYTES = bytes(range(256)) * 100
WHOLE = {"Content-Length": str(len(BYTES))}
DIGEST = hashlib.sha256(BYTES).hexdigest()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retort.download.time.sleep", lambda seconds: None)


def artifact(name: str = "model.safetensors", content: bytes = BYTES, **raw: Any) -> Artifact:
    return Artifact(id="art_1", name=name, format="safetensors", bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), raw=raw)


def ranged(content: bytes, *, most: int, tag: str = DIGEST) -> Callable[[Request], Answer]:
    """A service that knows ranges, whose line breaks after `most` bytes of each answer."""

    def play(request: Request) -> Answer:
        start, status, more = 0, 200, {}
        if "range" in request.headers and request.headers["if-range"] == f'"{tag}"':
            start, status = int(request.headers["range"].removeprefix("bytes=").removesuffix("-")), 206
            more = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        headers = {"Content-Length": str(len(content) - start), "ETag": f'"{tag}"', **more}
        return Answer(status, content[start : start + most], "application/octet-stream", headers)

    return play


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def test_a_download_gets_its_name_once_it_is_whole(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    with stage(script(Answer(200, BYTES, "application/octet-stream"))) as service:
        path = Client(service.url, key="k").artifacts.download(artifact(), tmp_path / "new", progress=lambda *each: told.append(each))
    assert path == tmp_path / "new" / "model.safetensors"
    assert path.read_bytes() == BYTES
    assert names(path.parent) == ["model.safetensors"]
    assert told[-1] == (len(BYTES), len(BYTES))


def test_bytes_that_are_not_what_was_promised_never_get_the_name(tmp_path: Path) -> None:
    with stage(script(Answer(200, b"x" + BYTES[1:]))) as service, pytest.raises(Corrupted, match="promised"):
        Client(service.url, key="k").artifacts.download(artifact(), tmp_path)
    assert names(tmp_path) == []


def test_a_download_goes_on_where_the_line_broke_however_often_it_does(tmp_path: Path) -> None:
    told: list[int] = []
    with stage(ranged(BYTES, most=3000)) as service:
        path = Client(service.url, key="k").artifacts.download(artifact(), tmp_path, progress=lambda done, of: told.append(done))
    assert path.read_bytes() == BYTES
    assert names(tmp_path) == ["model.safetensors"]
    asked = [request.headers.get("range") for request in service.requests]
    assert asked == [None, *(f"bytes={start}-" for start in range(3000, len(BYTES), 3000))]
    assert told == sorted(told)
    assert told[-1] == len(BYTES)


def test_a_later_call_goes_on_from_what_an_earlier_one_left(tmp_path: Path) -> None:
    with stage(script(Answer(200, BYTES[:1000], headers=WHOLE), Answer(503))) as service, pytest.raises(ApiError):
        Client(service.url, key="k", retries=0).artifacts.download(artifact(), tmp_path)
    assert names(tmp_path) == [f".model.safetensors.{DIGEST[:16]}.part"]
    with stage(ranged(BYTES, most=1 << 20)) as service:
        assert Client(service.url, key="k").artifacts.download(artifact(), tmp_path).read_bytes() == BYTES
    assert [request.headers.get("range") for request in service.requests] == ["bytes=1000-"]
    assert names(tmp_path) == ["model.safetensors"]


def test_a_service_without_ranges_sends_the_whole_and_that_is_taken(tmp_path: Path) -> None:
    with stage(script(Answer(200, BYTES[:1000], headers=WHOLE), Answer(200, BYTES))) as service:
        assert Client(service.url, key="k").artifacts.download(artifact(), tmp_path).read_bytes() == BYTES
    assert service.requests[1].headers["range"] == "bytes=1000-"
    assert names(tmp_path) == ["model.safetensors"]


def test_a_part_that_went_bad_on_the_disk_is_found_out_and_not_gone_on_from(tmp_path: Path) -> None:
    (tmp_path / f".model.safetensors.{DIGEST[:16]}.part").write_bytes(b"x" * 1000)
    with stage(ranged(BYTES, most=1 << 20)) as service:
        with pytest.raises(Corrupted):
            Client(service.url, key="k").artifacts.download(artifact(), tmp_path)
        assert names(tmp_path) == []
        assert Client(service.url, key="k").artifacts.download(artifact(), tmp_path).read_bytes() == BYTES


def test_a_part_that_is_too_long_begins_anew(tmp_path: Path) -> None:
    (tmp_path / f".model.safetensors.{DIGEST[:16]}.part").write_bytes(BYTES + b"more")
    with stage(ranged(BYTES, most=1 << 20)) as service:
        assert Client(service.url, key="k").artifacts.download(artifact(), tmp_path).read_bytes() == BYTES


def test_the_part_of_another_version_goes(tmp_path: Path) -> None:
    (tmp_path / f".model.safetensors.{'0' * 16}.part").write_bytes(b"old")
    (tmp_path / ".model.safetensors.mine.part").write_bytes(b"not ours")
    with stage(ranged(BYTES, most=1 << 20)) as service:
        Client(service.url, key="k").artifacts.download(artifact(), tmp_path)
    assert names(tmp_path) == [".model.safetensors.mine.part", "model.safetensors"]


def test_a_line_that_breaks_again_and_again_at_one_place_is_given_up_and_says_what_is_kept(tmp_path: Path) -> None:
    play = script(Answer(200, BYTES[:1000], headers=WHOLE), Answer(hang_up=True))
    with stage(play) as service, pytest.raises(Unreachable) as told:
        Client(service.url, key="k", retries=0).artifacts.download(artifact(), tmp_path)
    assert f"1000 of {len(BYTES)} bytes are kept" in told.value.hint
    assert names(tmp_path) == [f".model.safetensors.{DIGEST[:16]}.part"]


def test_a_file_that_is_there_already_is_not_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(BYTES)
    with stage(script(Answer(500))) as service:
        Client(service.url, key="k").artifacts.download(artifact(), tmp_path)
    assert service.requests == []


def test_an_empty_file_is_fetched_too(tmp_path: Path) -> None:
    with stage(script(Answer(200, b""))) as service:
        assert Client(service.url, key="k").artifacts.download(artifact(content=b""), tmp_path).read_bytes() == b""


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "", "..\\evil"])
def test_a_name_that_leads_out_of_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    with stage(script(Answer(200, BYTES))) as service:
        for wrong in (artifact(name), artifact(path=name or "..")):
            with pytest.raises(Corrupted, match="outside"):
                Client(service.url, key="k").artifacts.download(wrong, tmp_path / "to")
    assert names(tmp_path) == []


def test_two_files_of_one_name_lie_where_the_service_says_and_the_sums_name_both(tmp_path: Path) -> None:
    files = [artifact("README.md"), artifact("README.md", path="onnx/README.md"), artifact("SHA256SUMS", path=None)]
    with stage(script(Answer(200, BYTES))) as service:
        for each in files[:2]:
            Client(service.url, key="k").artifacts.download(each, tmp_path)
    assert (tmp_path / "onnx" / "README.md").read_bytes() == BYTES
    assert write_sums(files, tmp_path).read_text() == f"{DIGEST}  README.md\n{DIGEST}  onnx/README.md\n"


def zipped(files: dict[str, bytes], sums: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, content in {**files, "SHA256SUMS": sums.encode()}.items():
            file.writestr(name, content)
    return out.getvalue()


def bundled(service_url: str, folder: Path) -> Path:
    client = Client(service_url, key="k")
    return client.jobs.get("job_1").download_bundle(folder)


def serving(content: bytes, *, most: int = 1 << 20) -> Callable[[Request], Answer]:
    """A job, and its bundle."""
    of_bundle = ranged(content, most=most, tag="b" * 64)
    job = b'{"id": "job_1", "name": "small", "status": "succeeded", "is_terminal": true}'
    return lambda request: of_bundle(request) if request.path.endswith("/bundle") else Answer(200, job)


def test_a_bundle_goes_on_where_the_line_broke_and_every_file_in_it_is_checked(tmp_path: Path) -> None:
    content = zipped({"model.safetensors": BYTES}, f"{DIGEST}  model.safetensors\n")
    with stage(serving(content, most=9000)) as service:
        path = bundled(service.url, tmp_path)
    assert path == tmp_path / "job_1.zip"
    assert path.read_bytes() == content
    assert [request.headers.get("range") for request in service.requests if request.method == "GET"][2:] == ["bytes=9000-", "bytes=18000-"]


@pytest.mark.parametrize(
    "content",
    [
        zipped({"a": BYTES}, f"{'0' * 64}  a\n"),
        zipped({"a": BYTES, "b": b""}, f"{DIGEST}  a\n"),
        zipped({}, f"{DIGEST}  a\n"),
        zipped({"a": BYTES}, f"{DIGEST}  a\n")[:-5],
        b"no zip",
    ],
    ids=["another digest", "one file more", "one file less", "cut", "no zip"],
)
def test_a_bundle_that_is_not_what_its_sums_say_never_gets_the_name(content: bytes, tmp_path: Path) -> None:
    with stage(serving(content)) as service, pytest.raises(Corrupted):
        bundled(service.url, tmp_path)
    assert names(tmp_path) == []
