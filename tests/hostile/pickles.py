"""Pickles that would run code, or never end, or take all memory, in every container in which a checkpoint comes."""

import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Iterator, Mapping

import numpy as np
import torch

from tests.hostile.inputs import Input

WEIGHTS = {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.tensor([1.0, -1.0])}
_MAGIC, _PROTOCOL, _SYSTEM = 0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {"long": 8}}


def text(value: str) -> bytes:
    """A string onto the stack."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def name(module: str, function: str) -> bytes:
    """A global onto the stack, by GLOBAL."""
    return f"c{module}\n{function}\n".encode()


def call(module: str, function: str, *arguments: str | bytes) -> bytes:
    """A call by REDUCE; bytes are opcodes that make an argument."""
    made = b"".join(each if isinstance(each, bytes) else text(each) for each in arguments)
    return name(module, function) + b"(" + made + b"tR"


def forms(canary: str) -> dict[str, bytes]:
    """One call, `posix.mkdir(canary)`, by every way in which a pickle can make it."""
    made, path = name("posix", "mkdir"), text(canary)
    return {
        "GLOBAL REDUCE": made + path + b"\x85R",
        "STACK_GLOBAL REDUCE": text("posix") + text("mkdir") + b"\x93" + path + b"\x85R",
        "INST": b"(" + path + b"iposix\nmkdir\n",
        "OBJ": b"(" + made + path + b"o",
        "NEWOBJ": made + path + b"\x85\x81",
        "NEWOBJ_EX": made + path + b"\x85}\x92",
        "EXT1": b"\x82\x01" + path + b"\x85R",
        "EXT4": b"\x84\x01\x00\x00\x00" + path + b"\x85R",
        "BUILD of an object": name("collections", "OrderedDict") + b")R}" + text("__class__") + made + b"sb",
        "BUILD of a function": name("torch._utils", "_rebuild_tensor_v2") + b"}" + text("__code__") + path + b"sb",
        "BUILD of a class": name("collections", "OrderedDict") + b"}" + text("__setitem__") + made + b"sb",
        "GLOBAL of a nested name": name("collections", "OrderedDict.__init__.__globals__") + b"N\x85R",
        "STACK_GLOBAL of a nested name": text("torch") + text("serialization.os.system") + b"\x93" + text(f"mkdir {canary}") + b"\x85R",
        "PERSID": b"Pmkdir\n",
        "BINPERSID": made + path + b"\x86Q",
        "in a tuple that is a key": b"}(" + made + path + b"\x85RN\x86K\x01us",
        "memoised twice": made + b"q\x000h\x00" + path + b"\x85R",
        "popped at once": made + path + b"\x85R0N",
        "after a POP_MARK": b"(" + made + path + b"\x85R1N",
        "between two pickles": b"N." + made + path + b"\x85R",
    }


def calls(canary: str) -> dict[str, bytes]:
    """Functions that would do harm, each called."""
    touch = f"open({canary!r}, 'w')"
    shell = f"touch {canary}"
    listed = [
        ("os", "system", shell), ("nt", "system", shell), ("posix", "putenv", "HOSTILE", "1"),
        ("os", "environ.__setitem__", "HOSTILE", "1"),
        ("builtins", "eval", touch), ("__builtin__", "eval", touch), ("builtins", "exec", touch), ("builtins", "open", canary, "w"),
        ("builtins", "__import__", "antigravity"), ("builtins", "compile", touch, "x", "exec"), ("builtins", "breakpoint"),
        ("subprocess", "Popen", shell),
        ("subprocess", "getoutput", shell), ("subprocess", "check_output", shell),
        ("importlib", "import_module", "antigravity"), ("runpy", "run_path", canary), ("runpy", "_run_code", touch, b"}"),
        ("pty", "spawn", shell), ("timeit", "timeit", touch), ("cProfile", "run", touch), ("pdb", "run", touch), ("code", "interact"),
        ("ctypes", "CDLL", canary), ("socket", "create_connection", name("builtins", "tuple")), ("webbrowser", "open", "http://localhost:9/"),
        ("urllib.request", "urlopen", "http://localhost:9/"), ("shutil", "copy", "/dev/null", canary), ("shutil", "rmtree", canary),
        ("pickle", "loads", pickle.dumps(1)[:0] + b"C\x02N."), ("marshal", "loads", b"C\x01N"), ("_pickle", "loads", b"C\x02N."),
        ("types", "FunctionType", b"N", b"}"), ("pathlib", "Path.touch", canary), ("multiprocessing.util", "spawnv_passfds", canary),
        ("logging.config", "fileConfig", canary), ("numpy", "load", canary), ("numpy.testing._private.utils", "runstring", touch, b"}"),
        ("torch", "load", canary), ("torch.serialization", "load", canary), ("torch.storage", "_load_from_bytes", b"C\x02N."),
        ("torch.hub", "load", canary, "x"), ("torch.hub", "load_state_dict_from_url", "http://localhost:9/"), ("torch.jit", "load", canary),
        ("torch", "save", b"N", canary), ("torch.ops", "load_library", canary), ("torch.utils.cpp_extension", "load_inline", "x", touch),
        ("torch._dynamo", "optimize", touch), ("torch.utils._config_module", "ConfigModule.load_config", b"N"), ("torch", "compile", b"N"),
        ("torch.serialization", "add_safe_globals", b"]" + name("posix", "system") + b"a"), ("torch.fx._symbolic_trace", "wrap", touch),
        ("torch._utils", "_import_dotted_name", "os.system"), ("torch.fx.graph_module", "_forward_from_src", touch, b"}"),
    ]  # fmt: skip
    made = {f"{module}.{function}": call(module, function, *arguments) for module, function, *arguments in listed}  # type: ignore[arg-type]
    partial = call("functools", "partial", name("posix", "mkdir"), canary)
    for depth in (1, 3):
        made[f"functools.partial {depth} deep"] = partial + b")R"
        partial = name("functools", "partial") + partial + b"\x85R"
    made["operator.methodcaller"] = call("operator", "methodcaller", "system", shell) + call("importlib", "import_module", "os") + b"\x85R"
    made["getattr of a module"] = call("builtins", "getattr", call("builtins", "__import__", "os"), "system") + text(shell) + b"\x85R"
    made["map and list"] = call("builtins", "list", call("builtins", "map", name("posix", "mkdir"), b"]" + text(canary) + b"a"))
    return made


def misuses(canary: str) -> dict[str, bytes]:
    """What the reader of weights does allow, with arguments that its authors did not mean."""
    storage = b"(" + text("storage") + name("torch", "FloatStorage") + text("0") + text("cpu") + b"K\x06tQ"

    def tensor(offset: bytes, shape: bytes, stride: bytes, stored: bytes = storage) -> bytes:
        rebuilt = b"(" + stored + offset + shape + stride + b"\x89" + name("collections", "OrderedDict") + b")RtR"
        return b"}" + text("w") + name("torch._utils", "_rebuild_tensor_v2") + rebuilt + b"s"

    huge = b"\x8a\x06" + (1 << 40).to_bytes(6, "little")
    shifted = b"".join(b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(60))
    lists = b"".join(b"](h" + bytes([i]) * 1 + b"h" + bytes([i]) + b"h" + bytes([i]) + b"eq" + bytes([i + 1]) for i in range(60))
    return {
        "a tensor beyond its storage": tensor(b"K\x00", huge + b"\x85", b"K\x01\x85"),
        "a tensor before its storage": tensor(b"J\xff\xff\xff\xff", b"K\x02\x85", b"K\x01\x85"),
        "a tensor of negative size": tensor(b"K\x00", b"J\xfe\xff\xff\xff\x85", b"K\x01\x85"),
        "a tensor of negative stride": tensor(b"K\x05", b"K\x02\x85", b"J\xff\xff\xff\xff\x85"),
        "a tensor seen a billion times": tensor(b"K\x00", b"J\x00\xca\x9a\x3b\x85", b"K\x00\x85"),
        "sizes whose product overflows": tensor(b"K\x00", b"(" + huge * 4 + b"t", b"(" + b"K\x00" * 4 + b"t"),
        "a shape of text": tensor(b"K\x00", text("six") + b"\x85", b"K\x01\x85"),
        "a storage of nothing": tensor(b"K\x00", b"K\x02\x85", b"K\x01\x85", b"N"),
        "a storage on another device": tensor(b"K\x00", b"K\x02\x85", b"K\x01\x85", storage.replace(text("cpu"), text("cuda:7"))),
        "a storage of another member": tensor(b"K\x00", b"K\x02\x85", b"K\x01\x85", storage.replace(text("0"), text("../data.pkl"))),
        "a storage that claims more": tensor(b"K\x00", b"K\x02\x85", b"K\x01\x85", storage.replace(b"K\x06tQ", huge + b"tQ")),
        "bytearray of a terabyte": call("builtins", "bytearray", huge),
        "bytearray of a gigabyte": call("builtins", "bytearray", b"J\x00\x00\x00\x40"),
        "torch.Size of text": call("torch", "Size", text(canary)),
        "torch.device of a path": call("torch", "device", canary),
        "_codecs.encode by a codec": call("_codecs", "encode", canary, "hex_codec"),
        "_codecs.encode by zlib": call("_codecs", "encode", "x" * 100_000, "zlib_codec"),
        "a type rebuilt": call(
            "torch._tensor", "_rebuild_from_type_v2", name("posix", "mkdir"), name("torch", "Tensor"), text(canary) + b"\x85", b"}"
        ),
        "a parameter of none": call("torch._utils", "_rebuild_parameter", b"N", b"\x88", b"}"),
        "a meta tensor": call(
            "torch._utils", "_rebuild_meta_tensor_no_storage", name("torch", "float32"), huge + b"\x85", b"K\x01\x85", b"\x89"
        ),
        "a sparse tensor": call("torch._utils", "_rebuild_sparse_tensor", name("torch", "sparse_coo"), b"NN" + huge + b"\x87"),
        "a counter of itself": call("collections", "Counter", b"]q\x00h\x00a"),
        "SETITEMS of a string": text("x") + b"(K\x01K\x02u",
        "APPENDS to a number": b"K\x01(K\x02e",
        "a hash that doubles sixty times": b")q\x00" + shifted + b"}h\x3cK\x01s",
        "a list that triples sixty times": b"]q\x00" + lists,
        "a dict in itself": b"}q\x00" + text("a") + b"h\x00s",
        "a long of two megabytes": b"\x8b" + struct.pack("<i", 2 << 20) + b"\x7f" * (2 << 20),
        "a number of a million digits": b"I" + b"9" * 1_000_000 + b"\n",
        "lists in each other": b"]" * 200_000 + b"a" * 199_999,
        "marks without an end": b"(" * 2_000_000,
        "tuples in each other as a key": b"}N" + b"\x85" * 200_000 + b"K\x01s",
        "names without an end": b"c" + b"a" * 1_000_000,
        "a string that claims four gigabytes": b"X\xff\xff\xff\xff" + b"a" * 100,
        "bytes that claim an exabyte": b"\x8e\xff\xff\xff\xff\xff\xff\xff\x0f",
        "a memo of far": b"Nr\xff\xff\xff\x7f",
        "a frame of far": b"\x95\xff\xff\xff\xff\xff\xff\xff\x7fN",
        "millions of nothings": b"(" + b"N" * 4_000_000 + b"t",
        "a memo of millions": b"N" + b"".join(b"r" + struct.pack("<I", i) for i in range(200_000)),
        "no stop": b"N" * 10 + b"\xff",
    }


def zipped(body: bytes, **more: bytes) -> bytes:
    """A checkpoint as torch.save packs it, with this pickle and one storage."""
    buffer = io.BytesIO()
    members = {"data.pkl": body, "byteorder": b"little", "data/0": bytes(24), "version": b"3\n", **more}
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for member, data in members.items():
            archive.writestr(f"checkpoint/{member}", data)
    return buffer.getvalue()


def legacy(body: bytes) -> bytes:
    """A checkpoint as torch.save wrote it before zip: magic, protocol, system, the pickle, the names of storages, the storages."""
    head = b"".join(pickle.dumps(each, 2) for each in (_MAGIC, _PROTOCOL, _SYSTEM))
    return head + body + pickle.dumps(["0"], 2) + struct.pack("<q", 6) + bytes(24)


def tarred(body: bytes) -> bytes:
    """A checkpoint as torch 0.1 wrote it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for member in ("storages", "tensors", "pickle"):
            info = tarfile.TarInfo(member)
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    return buffer.getvalue()


def inputs(canary: str) -> Iterator[Input]:
    """Every pickle, in a zip; those of the opcodes and of misuse also in the other containers and within a state dict."""
    every: Mapping[str, bytes] = forms(canary) | calls(canary) | misuses(canary)
    for what, body in every.items():
        yield Input(f"zip: {what}", "checkpoint", zipped(b"\x80\x02" + body + b"."))
    for k, (what, body) in enumerate((forms(canary) | misuses(canary)).items()):
        if k % 2:
            yield Input(f"legacy: {what}", "checkpoint", legacy(b"\x80\x02" + body + b"."))
        elif len(body) < 10_000:
            nested = b"\x80\x04}" + text("state_dict") + b"}" + text("fc.weight") + body + b"ss."
            yield Input(f"state_dict: {what}", "checkpoint", zipped(nested), {"weights": {"select": "state_dict"}})
    for what, body in list(forms(canary).items())[::3]:
        yield Input(f"ema: {what}", "checkpoint", zipped(b"\x80\x04}" + text("ema") + b"}" + text("module") + body + b"ss."))
        yield Input(f"alone: {what}", "checkpoint", b"\x80\x02" + body + b".")
        yield Input(f"as a teacher: {what}", "teacher", zipped(b"\x80\x02" + body + b"."), {"architecture": None})
    body = b"\x80\x02" + forms(canary)["GLOBAL REDUCE"] + b"."
    yield Input("tar", "checkpoint", tarred(body))
    yield Input("the names of storages", "checkpoint", legacy(b"\x80\x02N.")[:-60] + body)
    yield Input("the first of an old file", "checkpoint", body + legacy(b"\x80\x02N."))
    yield Input("a second pickle in the zip", "checkpoint", zipped(b"\x80\x02}.", **{"extra/data.pkl": body}))
    yield Input("TorchScript", "checkpoint", zipped(body, **{"code/__torch__.py": b"import os", "constants.pkl": body}))
    array = io.BytesIO()
    np.savez(array, allow_pickle=True, x=np.array([Calls(canary)], object), y=np.zeros(1, np.int64))
    yield Input("an array of objects", "dataset", array.getvalue(), {"format": "npz"})


class Calls:
    """An object whose pickle makes a folder."""

    def __init__(self, canary: str) -> None:
        self._canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.mkdir, (self._canary,)
