"""PyTorch checkpoints: what is found in them, what is refused, and that nothing in them ever runs."""

import io
import json
import os
import pickle
import socket
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from core import isolation
from core.artifacts import load_weights
from core.blobs import digest_of
from core.convert import read_checkpoint
from core.errors import Refused
from core.events import Inspected
from tests.core.folders import Ended, work

WEIGHTS = {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.tensor([1.0, -1.0])}
OTHER = {name: tensor + 1 for name, tensor in WEIGHTS.items()}


def saved(tmp_path: Path, held: object, **how: Any) -> Path:
    path = tmp_path / "checkpoint.pth"
    torch.save(held, path, **how)
    return path


def equal(found: Any, expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("held", "place"),
    [
        (WEIGHTS, ""),
        (OrderedDict(WEIGHTS), ""),
        ({"state_dict": WEIGHTS, "epoch": 7}, "state_dict"),
        ({"model": WEIGHTS, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}}, "model"),
        ({"model_state_dict": WEIGHTS, "scheduler": {"last": torch.ones(1)}}, "model_state_dict"),
        ({"teacher": {"state_dict": WEIGHTS}, "args": {"t": torch.ones(1)}}, "teacher.state_dict"),
        ({"state_dict": WEIGHTS, "state_dict_ema": OTHER}, "state_dict"),
        ({"model_ema": WEIGHTS}, "model_ema"),
    ],
)
def test_the_state_dict_is_found_where_people_put_it(tmp_path: Path, held: object, place: str) -> None:
    found = read_checkpoint(saved(tmp_path, held))
    assert (found.source, found.selected) == ("torch_zip", place)
    assert equal(found.weights, WEIGHTS)


@pytest.mark.parametrize(
    ("held", "select"),
    [
        ({"state_dict": OTHER, "state_dict_ema": WEIGHTS}, "state_dict_ema"),
        ({"params": OTHER, "params_ema": WEIGHTS}, "params_ema"),
        ({"model": OTHER, "ema": {"decay": 0.9, "module": WEIGHTS}}, "ema"),
        ({"student": OTHER, "teacher": WEIGHTS}, "teacher"),
    ],
)
def test_an_average_or_a_part_is_chosen_by_its_name(tmp_path: Path, held: object, select: str) -> None:
    assert equal(read_checkpoint(saved(tmp_path, held), select).weights, WEIGHTS)


@pytest.mark.parametrize(("select", "says"), [(None, "several state dicts"), ("emma", "no single state dict 'emma'")])
def test_a_choice_that_is_open_or_wrong_lists_what_is_there(tmp_path: Path, select: str | None, says: str) -> None:
    with pytest.raises(Refused, match=says) as refused:
        read_checkpoint(saved(tmp_path, {"student": WEIGHTS, "teacher": OTHER}), select)
    assert refused.value.where == "/weights/select"
    assert '"student", "teacher"' in refused.value.reason + refused.value.hint


def test_what_is_no_tensor_is_left_out_and_named(tmp_path: Path) -> None:
    found = read_checkpoint(saved(tmp_path, {**WEIGHTS, "epoch": 3, "best": 0.5}))
    assert found.left_out == ("epoch", "best")
    assert equal(found.weights, WEIGHTS)


def test_tied_tensors_get_memory_of_their_own(tmp_path: Path) -> None:
    tied = torch.ones(3, 3)
    weights = read_checkpoint(saved(tmp_path, {"a": tied, "b": tied, "c": tied.T})).weights
    assert len({tensor.data_ptr() for tensor in weights.values()}) == 3


def test_an_old_pickle_is_read_as_well(tmp_path: Path) -> None:
    found = read_checkpoint(saved(tmp_path, {"state_dict": WEIGHTS}, _use_new_zipfile_serialization=False))
    assert found.source == "torch_legacy"
    assert equal(found.weights, WEIGHTS)


def scripted() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("net/data.pkl", "net/constants.pkl", "net/code/__torch__.py"):
            archive.writestr(name, b"\x80\x02}.")
    return buffer.getvalue()


def exported() -> bytes:
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),)), buffer)
    return buffer.getvalue()


def archive(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as made:
        for name, data in members.items():
            made.writestr(name, data)
    return buffer.getvalue()


def huge() -> bytes:
    """A tensor of a few bytes that claims to be seen a million million times over."""
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(1).expand(10**12)}, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (scripted, "TorchScript"),
        (exported, r"\.pt2 archive"),
        (lambda: b"\0" * 257 + b"ustar" + b"\0" * 300, "a tar file"),
        (lambda: b"", "no file of torch.save"),
        (lambda: b'{"a": 1}', "no file of torch.save"),
        (lambda: archive({"a/data": b""}), "not one data.pkl"),
        (lambda: archive({"a/data": b"0" * (64 << 20), "a/data.pkl": b"\x80\x02}."}, zipfile.ZIP_DEFLATED), "compressed or encrypted"),
        (lambda: archive({"../a": b"", "a/data.pkl": b"\x80\x02}."}), "leads out of the archive"),
        (lambda: archive({"a/data.pkl": b"\x80\x02" + b"N" * (9 << 20)}), "its pickle has"),
        (lambda: b"\x80\x02}q\x01.", "damaged"),
        (lambda: b"\x80\x02" + b"(" * 100, "damaged|more than tensors"),
        (huge, "far larger together than the file"),
    ],
)
def test_what_is_no_plain_checkpoint_is_refused_by_name(tmp_path: Path, data: Callable[[], bytes], message: str) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(data())
    with pytest.raises(Refused, match=message) as refused:
        read_checkpoint(path)
    assert refused.value.where == "/upload"


def test_a_checkpoint_without_a_state_dict_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no state dict"):
        read_checkpoint(saved(tmp_path, {"epoch": 3, "optimizer": {"step": torch.ones(1)}}))


def test_a_whole_module_is_refused_with_what_to_save_instead(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="more than tensors and plain containers") as refused:
        read_checkpoint(saved(tmp_path, nn.Linear(2, 2)))
    assert "state_dict()" in refused.value.hint


class Calls:
    """An object whose pickle is a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def attacks(canary: str) -> dict[str, object]:
    """Each would leave a file at `canary` if anything in it ran."""
    touch = f"open({canary!r}, 'w')"
    module = __import__
    return {
        "os.system": Calls(os.system, f"touch {canary}"),
        "posix.mkdir": Calls(os.mkdir, canary),
        "eval": Calls(eval, touch),
        "exec": Calls(exec, touch),
        "open": Calls(open, canary, "w"),
        "nested in the state dict": {"state_dict": {**WEIGHTS, "x": Calls(os.mkdir, canary)}},
        "as a key": {("a", Calls(os.mkdir, canary)): 1},
        "subprocess": Calls(module("subprocess").getoutput, f"touch {canary}"),
        "runpy": Calls(module("runpy")._run_code, touch, {}),
        "pathlib": Calls(Path.touch, Path(canary)),
        "shutil": Calls(module("shutil").copy, "/dev/null", canary),
        "a pickle in a pickle": Calls(pickle.loads, pickle.dumps(Calls(os.mkdir, canary))),
        "torch.load itself": Calls(torch.load, canary),
        "importlib": Calls(module("importlib").import_module, "antigravity"),
        "builtins by name": Calls(getattr, Calls(module, "os"), "getcwd"),
        "torch.hub": Calls(torch.hub.load_state_dict_from_url, "http://127.0.0.1:9/"),
    }


@pytest.mark.parametrize("name", list(attacks("")))
@pytest.mark.parametrize("old", [False, True])
def test_a_pickle_that_would_run_code_is_refused_and_does_not(tmp_path: Path, name: str, old: bool) -> None:
    canary = tmp_path / "canary"
    path = saved(tmp_path, attacks(str(canary))[name], _use_new_zipfile_serialization=not old)
    with pytest.raises(Refused) as refused:
        read_checkpoint(path)
    assert refused.value.where == "/upload"
    assert not canary.exists()


def test_the_canary_can_sing(tmp_path: Path) -> None:
    """Opened without care, such a pickle does run: the test above could fail."""
    canary = tmp_path / "canary"
    pickle.loads(pickle.dumps(attacks(str(canary))["posix.mkdir"]))
    assert canary.exists()


def test_a_claim_of_memory_is_refused_and_not_granted(tmp_path: Path) -> None:
    """`bytearray(10 ** 10)`, which the reader of weights would call."""
    body = b"\x80\x02c__builtin__\nbytearray\n\x8a\x05" + struct.pack("<q", 10**10)[:5] + b"\x85R."
    path = tmp_path / "x.pt"
    path.write_bytes(archive({"a/data.pkl": body, "a/version": b"3\n", "a/byteorder": b"little"}))
    with pytest.raises(Refused):
        read_checkpoint(path)


def conversion(folder: Path, level: str, **request: Any) -> Ended:
    """Convert what lies in a folder, in a real child."""
    (folder / "job.json").write_text(json.dumps({"kind": "convert", "request": request, "runtime": {"convert": level}}))
    return work("convert", folder)


def test_a_real_child_converts_isolated_and_says_what_it_did(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    upload = saved(tmp_path / "in", {"state_dict": OTHER, "ema": {f"module.{name}": tensor for name, tensor in WEIGHTS.items()}})
    upload = upload.rename(tmp_path / "in" / "upload")
    ended = conversion(tmp_path, "isolated", weights={"select": "ema"})
    assert (ended.code, ended.log) == (0, "")
    told = next(event for event in ended.events if isinstance(event, Inspected))
    assert told.report["isolation"]["system_call_filter"]
    assert (told.report["selected"], told.report["found"]) == ("ema", ["ema", "state_dict"])
    assert told.report["source_sha256"] == digest_of(upload)
    (file,) = told.files
    assert file.sha256 == digest_of(tmp_path / file.path)
    assert equal(load_weights(tmp_path / file.path, {name: tuple(tensor.shape) for name, tensor in WEIGHTS.items()}), WEIGHTS)


def test_a_worker_that_was_not_told_to_opens_nothing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    saved(tmp_path / "in", WEIGHTS).rename(tmp_path / "in" / "upload")
    ended = conversion(tmp_path, "off")
    assert (ended.code, ended.refusal.where) == (10, "/format")


def isolated(what: Callable[[], object]) -> int:
    """The exit code of a process that isolates itself and then does this: 0 where it could, 1 where the system said no."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 2
    try:
        if isolation.forbid_calls():
            what()
            code = 0
    except PermissionError:
        code = 1
    finally:
        os._exit(code)


@pytest.mark.parametrize(
    ("what", "code"),
    [
        (lambda: None, 0),
        (lambda: Path("/proc/self/status").read_text(), 0),
        (socket.socket, 1),
        (lambda: socket.socket(socket.AF_UNIX), 1),
        (os.fork, 1),
        (lambda: os.execv("/bin/true", ["true"]), 1),
        (lambda: os.posix_spawn("/bin/true", ["true"], {}), 1),
    ],
)
def test_an_isolated_process_starts_nothing_and_reaches_nobody(what: Callable[[], object], code: int) -> None:
    assert isolated(what) == code
