"""What people upload, looked into: what is told of good files, and how each bad one is refused."""

import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save, save_file

from core.anatomy import Anatomy
from core.artifacts import read_header
from core.blobs import digest_of
from core.data import DatasetReport
from core.errors import Refused
from core.events import Event, Inspected, Phase, Result, decode
from core.inspect import inspect
from core.wire import Stopped, Wire
from tests.core.data.pictures import folders, pack
from tests.core.declared import residual
from tests.core.folders import NORMALIZATION, TEACHER, inspection, weights_of

WEIGHTS = weights_of(TEACHER, 1)
REQUEST = {"architecture": TEACHER, "normalization": NORMALIZATION}


def look(folder: Path, asset: str, request: Mapping[str, Any], upload: bytes = b"") -> list[Event]:
    """Inspect some bytes here and now, and give the events."""
    (folder / "in").mkdir(exist_ok=True)
    (folder / "in" / "upload").write_bytes(upload)
    out = os.open(folder / "events", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    try:
        inspect(folder, {"kind": "inspect", "asset": asset, "request": request}, Wire(out))
    finally:
        os.close(out)
    return [decode(line) for line in (folder / "events").read_text().splitlines()]


def zipped(tmp_path: Path, members: dict[str, bytes]) -> bytes:
    return pack(tmp_path / "zip", members).read_bytes()


def test_a_teacher_is_measured_and_its_weights_are_checked(tmp_path: Path) -> None:
    upload = save(WEIGHTS)
    phase, found, result = look(tmp_path, "teacher", {**REQUEST, "labels": list("0123456789")}, upload)
    assert phase == Phase("inspect")
    assert result == Result({})
    assert isinstance(found, Inspected)
    assert (found.report["parameters"], found.report["bytes"], found.report["format"]) == (4810, len(upload), "safetensors")
    anatomy = Anatomy.model_validate(found.report["anatomy"])
    assert (anatomy.input, anatomy.classes, anatomy.mean) == ((1, 8, 8), 10, (0.3,))


def test_an_architecture_is_measured(tmp_path: Path) -> None:
    _, found, _ = look(tmp_path, "architecture", {"architecture": TEACHER, "normalization": None})
    assert isinstance(found, Inspected)
    assert found.report["parameters"] == 4810


def test_a_declared_network_is_measured_and_a_name_that_timm_has_not_is_refused_at_its_field(tmp_path: Path) -> None:
    declared = {"family": "graph", "input": [3, 8, 8], "classes": 10, "nodes": residual(10)}
    _, found, _ = look(tmp_path, "architecture", {"architecture": declared, "normalization": None})
    assert isinstance(found, Inspected)
    anatomy = Anatomy.model_validate(found.report["anatomy"])
    assert anatomy.taps["add2"] == (16, 4, 4)
    with pytest.raises(Refused) as refused:
        look(tmp_path, "architecture", {"architecture": {"family": "timm", "name": "resnet81", "input": [3, 32, 32], "classes": 10}})
    assert refused.value.where == "/architecture/name"


def test_a_dataset_is_brought_into_canonical_form(tmp_path: Path) -> None:
    upload = zipped(tmp_path, folders(train=10))
    _, found, _ = look(tmp_path, "dataset", {"format": "imagefolder", "classes": 2, "class_names": None}, upload)
    assert isinstance(found, Inspected)
    report = DatasetReport.model_validate(found.report)
    assert report.counts == {"train": 16, "test": 4}
    file, preview = found.files
    with Image.open(tmp_path / preview.path) as image:
        assert (preview.name, image.format) == ("preview", "PNG")
    written = tmp_path / file.path
    assert (file.name, file.path) == ("dataset", "out/dataset.safetensors")
    assert (file.sha256, file.bytes) == (digest_of(written), written.stat().st_size)
    assert DatasetReport.model_validate_json(read_header(written).metadata["report"]) == report


def pickled(*, old: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(WEIGHTS, buffer, _use_new_zipfile_serialization=not old)
    return buffer.getvalue()


def infinite() -> bytes:
    return save({**WEIGHTS, "fc.bias": torch.full((10,), torch.inf)})


@pytest.mark.parametrize(
    ("request_", "upload", "where", "message"),
    [
        (REQUEST, pickled(old=False), "/upload", "begins like a zip archive"),
        (REQUEST, pickled(old=True), "/upload", "begins like a pickle"),
        (REQUEST, save(WEIGHTS)[:-100], "/upload", "truncated"),
        (REQUEST, save(WEIGHTS)[:20], "/upload", "truncated"),
        (REQUEST, b"", "/upload", "truncated"),
        (REQUEST, save({n: t for n, t in WEIGHTS.items() if n != "fc.bias"}), "/upload", r"missing: fc\.bias"),
        (REQUEST, save({**WEIGHTS, "fc.scale": torch.ones(1)}), "/upload", r"unexpected: fc\.scale"),
        (REQUEST, save({**WEIGHTS, "fc.bias": torch.ones(11)}), "/upload", r"fc\.bias has shape \[11\], the architecture \[10\]"),
        (REQUEST, save({**WEIGHTS, "fc.bias": torch.ones(10, dtype=torch.int64)}), "/upload", r'"fc\.bias" is torch\.int64'),
        (REQUEST, infinite(), "/upload", "an infinity"),
        ({**REQUEST, "labels": ["a"]}, save(WEIGHTS), "/labels", "1 labels, the teacher has 10 outputs"),
        ({**REQUEST, "normalization": {"mean": [0.0], "std": [0.0]}}, save(WEIGHTS), "/normalization/std", "above zero"),
        ({**REQUEST, "architecture": {**TEACHER, "family": "transformer"}}, save(WEIGHTS), "/architecture/family", "no family"),
        ({**REQUEST, "architecture": {**TEACHER, "hidden": [10**9]}}, save(WEIGHTS), "/architecture/hidden/0", "less than or equal"),
        ({**REQUEST, "architecture": {**TEACHER, "hidden": [16384] * 8}}, save(WEIGHTS), "/architecture", "parameters"),
    ],
)
def test_a_bad_teacher_is_refused_at_its_field(tmp_path: Path, request_: dict[str, Any], upload: bytes, where: str, message: str) -> None:
    with pytest.raises(Refused, match=message) as refused:
        look(tmp_path, "teacher", request_, upload)
    assert refused.value.where == where


def test_a_teacher_that_overflows_on_its_own_is_refused(tmp_path: Path) -> None:
    huge = {name: torch.full_like(tensor, 3e38) for name, tensor in WEIGHTS.items()}
    with pytest.raises(Refused, match="not finite"):
        look(tmp_path, "teacher", {**REQUEST, "normalization": {"mean": [-1.0], "std": [1.0]}}, save(huge))


def bomb() -> bytes:
    """A member that unpacks to more than a thousand times its size, many times over."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in ("train/cat/0.png", "train/dog/0.png"):
            archive.writestr(name, b"\0" * (50 << 20))
    assert 900 * len(buffer.getvalue()) < (100 << 20)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("request_", "members", "where", "message"),
    [
        ({"classes": 7}, {}, "/classes", "folders for 2 classes, but classes says 7"),
        ({}, {"train/cat/0.png": b"broken"}, "/upload", '"train/cat/0.png" is broken'),
        ({}, {"../../climb.png": b""}, "/upload", "leads out of the archive"),
        ({}, {"/etc/cron.d/x": b""}, "/upload", "leads out of the archive"),
        ({"format": "npz"}, {}, "/upload", "an .npz|the .npz holds"),
        ({"format": "tar"}, {}, "/format", "no format 'tar'"),
    ],
)
def test_a_bad_dataset_is_refused_at_its_field_or_by_its_member(
    tmp_path: Path, request_: dict[str, Any], members: dict[str, bytes], where: str, message: str
) -> None:
    upload = zipped(tmp_path, folders(train=3, test=1) | members)
    with pytest.raises(Refused, match=message) as refused:
        look(tmp_path, "dataset", {"format": "imagefolder", **request_}, upload)
    assert refused.value.where == where


def test_a_bomb_is_refused_unexploded(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="200 times its size"):
        look(tmp_path, "dataset", {"format": "imagefolder"}, bomb())


def test_a_stop_ends_a_long_inspection_and_leaves_no_half_a_file(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pack(tmp_path / "in" / "upload", folders(train=10))
    wire = Wire(os.open(os.devnull, os.O_WRONLY))
    wire.stop.set()
    with pytest.raises(Stopped):
        inspect(tmp_path, {"asset": "dataset", "request": {"format": "imagefolder"}}, wire)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_real_child_tells_a_dataset_of_real_digits(tmp_path: Path) -> None:
    from tests.core.folders import digits

    x, y = digits()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=x, y=y)
    ended = inspection(tmp_path, "dataset", {"format": "npz", "classes": 10}, buffer.getvalue())
    assert (ended.code, ended.log) == (0, "")
    assert isinstance(ended.events[1], Inspected)
    report = DatasetReport.model_validate(ended.events[1].report)
    assert (report.input, report.counts) == ((1, 8, 8), {"train": 1438, "test": 359})


def test_a_real_child_refuses_and_exits_with_ten(tmp_path: Path) -> None:
    path = tmp_path / "w"
    save_file({"fc.weight": torch.ones(3)}, path)
    ended = inspection(tmp_path, "teacher", REQUEST, path.read_bytes())
    assert (ended.code, ended.log, ended.refusal.where) == (10, "", "/upload")
    assert "missing: " in ended.refusal.reason
    assert json.loads((tmp_path / "job.json").read_text())["asset"] == "teacher"


def test_two_outputs_of_one_label_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        look(tmp_path, "teacher", {**REQUEST, "labels": ["zero"] * 10}, save(WEIGHTS))
    assert refused.value.where == "/labels"
