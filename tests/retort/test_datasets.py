"""`retort upload dataset`: which format the service is told."""

import json
import zipfile
from pathlib import Path

import pytest

from retort.cli import run
from tests.retort.stage import Answer, Request, stage

SENT = {"id": "upl_1", "purpose": "dataset", "filename": "f", "bytes": 1, "sha256": "0", "offset": 1, "status": "completed"}
MADE = {"object": "dataset", "id": "ds_1", "name": "d", "status": "processing"}


def play(request: Request) -> Answer:
    nothing: dict[str, object] = {"data": []}
    answer = MADE if request.path == "/v1/datasets" else nothing if request.method == "GET" else SENT
    return Answer(200, json.dumps(answer).encode(), headers={"Upload-Offset": "0", "Upload-Complete": "?0"})


@pytest.mark.parametrize(
    ("name", "members", "more", "told"),
    [
        ("a.zip", ["cat/1.png"], ["--size", "8x9"], {"format": "imagefolder", "size": [8, 9]}),
        ("a.zip", ["train-0.parquet"], ["--label", "fine"], {"format": "parquet", "label": "fine"}),
        ("a.PARQUET", None, [], {"format": "parquet"}),
        ("a.npz", None, ["--layout", "NCHW"], {"format": "npz", "layout": "NCHW"}),
        ("a.safetensors", None, ["--unlabelled"], {"format": "safetensors", "labelled": False}),
        ("a.csv", None, ["--classes", "3"], {"format": "csv", "classes": 3}),
        ("a.data", None, ["--format", "csv"], {"format": "csv"}),
    ],
)
def test_the_format_is_told_by_the_ending_or_by_the_person(
    tmp_path: Path, name: str, members: list[str] | None, more: list[str], told: dict[str, object]
) -> None:
    file = tmp_path / name
    file.write_bytes(b"x")
    if members is not None:
        with zipfile.ZipFile(file, "w") as archive:
            for member in members:
                archive.writestr(member, b"x")
    with stage(play) as service:
        code = run(["upload", "dataset", str(file), *more, "--no-wait", "--url", service.url, "--key", "k"])
    assert code == 0
    assert json.loads(service.requests[-1].body) == {"name": "a", "upload": "upl_1", **told}
