"""Turn a PyTorch checkpoint (.pt, .pth) into safetensors: the one place where a pickle is opened, in a child that can do little else.

Only torch's own reader for weights opens it, which builds tensors and plain containers and calls nothing else; that reader had faults
before (CVE-2025-32434, CVE-2026-24747), so the child has no credentials, and gives up the network and other programs first.
"""

import pickle
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from core.artifacts import DTYPES, MAX_BYTES, MAX_TENSORS, save_weights
from core.blobs import digest_of
from core.errors import Refused, first_line
from core.events import File, Inspected, Phase, Result
from core.isolation import bounded, forbid_calls, limit_files
from core.opcodes import check_opcodes
from core.wire import Wire

Level = Literal["off", "isolated", "anyway"]
"""What an operator allows: no conversion, one in an isolated child, or one wherever it must be."""

_TORCH = (2, 10)
"""Older readers of weights can be made to write where they should not: CVE-2026-24747."""
_MAX_MEMBERS = 2 * MAX_TENSORS
_MAX_PICKLE = 8 << 20
_SPARE = 192 << 20
_LEGACY = 5
"""Before zip, torch wrote so many pickles one after another: a magic number, a version, the system, the weights, the names of storages."""
_DEEPEST = 2
_NO_WEIGHTS = ("optim", "sched", "scaler", "rng", "amp", "args", "config", "hyper", "callbacks", "loops")
"""Parts of a checkpoint whose names begin so hold tensors too, and none of the network."""
_AVERAGES = ("ema", "avg", "average", "swa")
_PLAIN = "torch.save({k: v for k, v in model.state_dict().items()}, path)"
_MESSAGE = "save the state dict, and nothing else: " + _PLAIN


def convert(folder: Path, task: Mapping[str, Any], level: Level, wire: Wire, *, has_network: bool) -> None:
    """Convert the upload of a job folder and tell what was found; the weights lie in out/weights.safetensors under their own names.

    Raises Refused for what is no state dict, and where this machine cannot isolate the child and `level` asks for that.
    """
    wire.tell(Phase("inspect"))
    if level == "off":
        raise Refused("/format", "this worker does not open PyTorch checkpoints", hint="save it as safetensors, or ask its operator")
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < _TORCH:
        raise Refused("/format", f"this worker has torch {torch.__version__}: its reader has known holes", hint="ask its operator")
    upload, out = folder / "in" / "upload", folder / "out" / "weights.safetensors"
    out.parent.mkdir(exist_ok=True)
    size = upload.stat().st_size
    limit_files(2 * size + (64 << 20))
    has_filter = forbid_calls()
    if level == "isolated" and not has_filter:
        raise Refused("/format", "this worker cannot isolate the process that would open a pickle", hint="save it as safetensors")
    wire.pulse("reading the checkpoint")
    read = read_checkpoint(upload, (task["request"].get("weights") or {}).get("select"))
    wire.pulse("writing the weights")
    save_weights(out, read.weights)
    safety = {
        "source_format": read.source,
        "source_sha256": digest_of(upload),
        "converted": True,
        "loader": "torch.load(weights_only=True, mmap=False)",
        "torch": torch.__version__,
        "selected": read.selected or None,
        "found": list(read.found),
        "left_out": list(read.left_out[:20]),
        "isolation": {"network_namespace": not has_network, "system_call_filter": has_filter},
    }
    file = File("teacher", out.relative_to(folder).as_posix(), digest_of(out), out.stat().st_size)
    wire.tell(Inspected(safety, (file,)))
    wire.tell(Result({}))


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint holds: its kind, the weights that were meant, where they lay ("" for the whole file), where all the state dicts
    lie, and the names of what beside tensors lay among the weights.
    """

    source: Literal["torch_zip", "torch_legacy"]
    weights: Mapping[str, Tensor]
    selected: str
    found: tuple[str, ...]
    left_out: tuple[str, ...]


def read_checkpoint(path: Path, select: str | None = None) -> Checkpoint:
    """Read a file of torch.save, by its outside first. Raises Refused at /upload for what is no state dict, or more, and at
    /weights/select where it is not clear which state dict is meant.
    """
    size = path.stat().st_size
    source = _kind(path, size)
    _check_pickles(path, source)
    found = dict(_state_dicts(_loaded(path, size), ""))
    chosen = _chosen(found, select)
    weights, left = _tensors(found[chosen], size)
    return Checkpoint(source, weights, chosen, tuple(sorted(found)), tuple(left))


def _kind(path: Path, size: int) -> Literal["torch_zip", "torch_legacy"]:
    """Which kind of checkpoint this is, from its outside; Refused for what is none, or is code as much as weights."""
    where = "/upload"
    if size > MAX_BYTES:
        raise Refused(where, f"the file has {size:,} bytes; at most {MAX_BYTES:,} are read")
    with path.open("rb") as file:
        first = file.read(512)
    if first[257:262] == b"ustar" or first.startswith((b"storages", b"pickle\x00")):
        raise Refused(where, "this is a tar file, as torch wrote them before version 0.4", hint=_MESSAGE)
    if not zipfile.is_zipfile(path) or not first.startswith(b"PK"):
        if first[:1] == b"\x80" and first[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
            return "torch_legacy"
        raise Refused(where, "this is no file of torch.save", hint='a safetensors file needs "format": "safetensors"')
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OverflowError, NotImplementedError, OSError) as wrong:
        raise Refused(where, f"the archive is damaged: {wrong}"[:300], hint="upload the file again") from wrong
    _refuse_odd(members, size, where)
    return "torch_zip"


def _refuse_odd(members: list[zipfile.ZipInfo], size: int, where: str) -> None:
    """Refuse an archive that torch.save would not have written, or that is more than weights."""
    names = [member.filename for member in members]
    inner = {name.partition("/")[2] for name in names}
    if len(members) > _MAX_MEMBERS:
        raise Refused(where, f"the archive has {len(members):,} members; at most {_MAX_MEMBERS:,} are read")
    if any(name.startswith("code/") for name in inner) or "constants.pkl" in inner:
        raise Refused(where, "this is a TorchScript archive: code, and not weights alone", hint=_MESSAGE)
    if "archive_format" in inner or any("serialized_exported_program" in name or name.startswith("models/") for name in (*inner, *names)):
        raise Refused(where, "this is a .pt2 archive of torch.export: a program, and not weights alone", hint=_MESSAGE)
    if sum(name == "data.pkl" for name in (name.partition("/")[2] for name in names)) != 1:
        raise Refused(where, "this is no file of torch.save: the archive has not one data.pkl", hint=_MESSAGE)
    for member in members:
        name = member.filename
        if ".." in name.split("/") or name.startswith("/") or "\\" in name or "\0" in name:
            raise Refused(where, f"the member {name[:80]!r} leads out of the archive")
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size or member.flag_bits & 1:
            raise Refused(where, f"the member {name[:80]!r} is compressed or encrypted; torch.save writes none such", hint=_MESSAGE)
        if name.endswith("/data.pkl") and member.file_size > _MAX_PICKLE:
            raise Refused(where, f"its pickle has {member.file_size:,} bytes; at most {_MAX_PICKLE:,} are read", hint=_MESSAGE)
    if sum(member.file_size for member in members) > size or len(set(names)) < len(names):
        raise Refused(where, "the archive's members overlap, or two have one name")


def _check_pickles(path: Path, source: Literal["torch_zip", "torch_legacy"]) -> None:
    """Look through the pickles of a checkpoint without opening them. Raises Refused for what no reader should be given."""
    try:
        if source == "torch_zip":
            with zipfile.ZipFile(path) as archive:
                check_opcodes(archive.read(next(name for name in archive.namelist() if name.partition("/")[2] == "data.pkl")), 1)
        else:
            with path.open("rb") as file:
                check_opcodes(file.read(_MAX_PICKLE), _LEGACY)
    except Exception as wrong:  # zipfile's and pickletools' errors are many, and what they say of their bytes is no call of theirs
        raise Refused("/upload", f"the checkpoint is damaged: {first_line(wrong)}", hint=_MESSAGE) from wrong


def _loaded(path: Path, size: int) -> object:
    try:
        with bounded(2 * size + _SPARE):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=False)
    except pickle.UnpicklingError as wrong:
        reason = f"the checkpoint holds more than tensors and plain containers: {_said(wrong)}"
        raise Refused("/upload", reason, hint=_MESSAGE) from wrong
    except MemoryError as wrong:
        raise Refused("/upload", "the checkpoint asks for far more memory than its size", hint=_MESSAGE) from wrong
    except Exception as wrong:  # a damaged pickle makes the reader fail in any way there is; nothing of ours runs in it
        if "alloc" in str(wrong):
            raise Refused("/upload", "the checkpoint asks for far more memory than its size", hint=_MESSAGE) from wrong
        raise Refused("/upload", f"the checkpoint is damaged: {first_line(wrong)}", hint=_MESSAGE) from wrong


def _said(wrong: Exception) -> str:
    """What of torch's long message names the thing: its lines also tell how to trust the file, which nobody here should."""
    lines = [line.strip() for line in str(wrong).splitlines()]
    found = next((line for line in lines if "GLOBAL" in line or "nsupported" in line), lines[0] if lines else "")
    return found.partition(". Please")[0].removeprefix("WeightsUnpickler error: ")[:200]


def _state_dicts(held: object, path: str, depth: int = 0) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every mapping of names to tensors, by where it lies: "" for the whole file, "ema.module" within."""
    if not isinstance(held, Mapping) or not all(isinstance(name, str) for name in held):
        return
    if any(isinstance(value, Tensor) for value in held.values()):
        yield path, held
        return
    for name, value in held.items():
        if depth < _DEEPEST and not name.lower().startswith(_NO_WEIGHTS):
            yield from _state_dicts(value, f"{path}.{name}".lstrip("."), depth + 1)


def _chosen(found: Mapping[str, Mapping[str, Any]], select: str | None) -> str:
    """The place of the state dict that is meant: what was selected, or the only one that is no average."""
    if not found:
        raise Refused("/upload", "the checkpoint holds no state dict: no mapping of names to tensors", hint=_MESSAGE)
    there = ", ".join(f'"{path}"' if path else "the whole file" for path in sorted(found))
    if select is not None:
        fits = [path for path in found if path == select or path.split(".")[0] == select]
        if len(fits) != 1:
            raise Refused("/weights/select", f"there is no single state dict {select!r} in the file", hint=f"there are: {there}")
        return fits[0]
    plain = [path for path in found if not any(word in path.lower() for word in _AVERAGES)] or list(found)
    if len(plain) != 1:
        raise Refused("/weights/select", f"the file holds several state dicts: {there}", hint='"weights": {"select": one of them}')
    return plain[0]


def _tensors(state: Mapping[str, Any], size: int) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a state dict, each with memory of its own, and the names of what else it held."""
    weights, left, total = dict[str, Tensor](), list[str](), 0
    for name, value in state.items():
        if not isinstance(value, Tensor):
            left.append(name)
            continue
        if value.layout != torch.strided or value.is_quantized or value.dtype not in DTYPES or value.device.type != "cpu":
            kind = "quantized" if value.is_quantized else f"{value.layout}, {value.dtype}, on {value.device}"
            raise Refused("/upload", f'the tensor "{name}" is no plain one: {kind}', hint="save float or integer tensors on the CPU")
        total += value.nbytes
        if total > 4 * size + _SPARE or len(weights) >= MAX_TENSORS:
            raise Refused("/upload", "the tensors are far larger together than the file, or absurdly many", hint=_MESSAGE)
        weights[name] = value.detach().clone(memory_format=torch.contiguous_format)
    return weights, left
