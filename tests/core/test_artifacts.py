"""Weight files: what is read, and how every other file is refused."""

import json
import struct
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from core.artifacts import MAX_HEADER, load_into, load_weights, read_header, save_weights
from core.errors import Refused

WEIGHTS = {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.zeros(2), "bn.num_batches_tracked": torch.tensor(7)}
SHAPES = {name: tuple(tensor.shape) for name, tensor in WEIGHTS.items()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    save_file(WEIGHTS, path)
    return path


def write(path: Path, header: Mapping[str, Any] | bytes, data: bytes = b"", length: int | None = None) -> Path:
    """A file with any header over any data."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)
    return path


def one(**changes: Any) -> dict[str, Any]:
    return {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}}


def test_a_file_of_the_reference_library_is_read(path: Path) -> None:
    header = read_header(path)
    assert {name: entry.shape for name, entry in header.tensors.items()} == SHAPES
    weights = load_weights(path, SHAPES)
    assert all(torch.equal(weights[name], tensor) for name, tensor in WEIGHTS.items())


def test_what_is_written_is_read_back_with_its_metadata(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, {"w": torch.eye(3).T[:, :2]}, {"by": "test"})
    assert torch.equal(load_weights(path)["w"], torch.eye(3)[:, :2])
    assert read_header(path).metadata == {"by": "test"}
    assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"]


def test_a_pickle_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "teacher.pt"
    torch.save(WEIGHTS, path)
    with pytest.raises(Refused, match=r"begins like a zip archive, as those of torch\.save") as refused:
        load_weights(path, SHAPES)
    assert "safetensors.torch.save_file" in refused.value.hint
    assert '"format": "torch"' in refused.value.hint


def test_an_old_pickle_and_any_zip_are_refused_by_name(tmp_path: Path) -> None:
    old = tmp_path / "old.pt"
    torch.save(WEIGHTS, old, _use_new_zipfile_serialization=False)
    archive = tmp_path / "any.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("data.pkl", b"\x80\x02.")
    for path in (old, archive):
        with pytest.raises(Refused, match=r"begins like a (zip archive|pickle)"):
            read_header(path)


@pytest.mark.parametrize("keep", [0, 5, 8, 40, -1])
def test_a_truncated_file_is_refused_as_truncated_wherever_it_ends(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(Refused, match="truncated"):
        load_weights(path, SHAPES)


def test_missing_and_unexpected_keys_are_named_with_their_nearest(path: Path) -> None:
    with pytest.raises(Refused) as refused:
        load_weights(path, {**{n: s for n, s in SHAPES.items() if n != "fc.bias"}, "fc.biases": (2,)})
    assert "missing: fc.biases (the file has fc.bias)" in refused.value.reason
    assert "unexpected: fc.bias (the architecture has fc.biases)" in refused.value.reason


def test_a_wrong_shape_is_named_with_both_shapes(path: Path) -> None:
    with pytest.raises(Refused, match=r"fc.weight has shape \[2, 3\], the architecture \[3, 2\]"):
        load_weights(path, {**SHAPES, "fc.weight": (3, 2)})


def test_the_prefix_of_data_parallel_is_stripped(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({f"module.{name}": tensor for name, tensor in WEIGHTS.items()}, path)
    weights = load_weights(path, SHAPES)
    assert all(torch.equal(weights[name], tensor) for name, tensor in WEIGHTS.items())


@pytest.mark.parametrize(("value", "word"), [(float("nan"), "NaN"), (float("inf"), "an infinity")])
def test_a_value_that_is_not_finite_is_refused_with_its_tensor(tmp_path: Path, value: float, word: str) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.ones(2), "b": torch.tensor([0.0, value]).to(torch.bfloat16)}, path)
    with pytest.raises(Refused, match=f'the tensor "b" holds {word}'):
        load_weights(path)


EIGHT = b"\0" * 8


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        (b"[]", b"", "no JSON object"),
        (b"{oops}", b"", "not valid JSON"),
        (b'{"a":"\xff\xff"}', b"", "not valid JSON"),
        (b'{"a":' + b"9" * 5000 + b"}", b"", "not valid JSON"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b"", "deeper than 4"),
        (b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', EIGHT, "twice"),
        ({"__metadata__": {"a": 1}}, b"", "__metadata__"),
        ({"w": 1}, b"", "not described"),
        (one(extra=1), EIGHT, "not described"),
        (one(dtype="F4"), EIGHT, "dtype"),
        (one(dtype=["F32"]), EIGHT, "dtype"),
        (one(shape=[-2]), EIGHT, "no proper shape"),
        (one(shape=[True, 2]), EIGHT, "no proper shape"),
        (one(shape=[2.0]), EIGHT, "no proper shape"),
        (one(shape=[1] * 8 + [2]), EIGHT, "no proper shape"),
        (one(shape=[1 << 40, 1 << 40]), EIGHT, "its range has 8"),
        (one(data_offsets=[8, 0]), EIGHT, "its range has -8"),
        (one(data_offsets=[0]), EIGHT, "data_offsets"),
        (one(data_offsets=[4, 12]), b"\0" * 12, "hole"),
        (one(), b"\0" * 9, "belong to no tensor"),
        (one(), b"\0" * 7, "truncated"),
        ({**one(), "v": one()["w"]}, EIGHT, "overlaps"),
        ({"a/b": one()["w"]}, EIGHT, "tensor name"),
        ({"a" * 257: one()["w"]}, EIGHT, "tensor name"),
        ({str(i): {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(20_001)}, b"", "20,001 tensors"),
    ],
)
def test_a_header_that_is_ambiguous_or_contradicts_the_bytes_is_refused(
    tmp_path: Path, header: dict[str, Any] | bytes, data: bytes, message: str
) -> None:
    with pytest.raises(Refused, match=message) as refused:
        read_header(write(tmp_path / "w", header, data), where="/here")
    assert refused.value.where == "/here"


def test_a_header_that_claims_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="not a safetensors file"):
        read_header(write(tmp_path / "w", b"{}", b"", length=MAX_HEADER + 1))


def test_a_file_beyond_the_limit_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(Refused, match="at most"):
        read_header(path)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_mutation_of_a_valid_file_does_anything_but_read_or_refuse(tmp_path: Path, data: st.DataObject) -> None:
    whole = tmp_path / "whole"
    if not whole.exists():
        save_file(WEIGHTS, whole)
    raw = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(raw) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "insert", "swap"])):
            case "flip":
                raw[at] ^= 1 << data.draw(st.integers(0, 7))
            case "cut":
                del raw[at : at + data.draw(st.integers(1, 40))]
            case "insert":
                raw[at:at] = data.draw(
                    st.one_of(st.binary(max_size=20), st.sampled_from([b"[", b"{", b'"', b"9" * 30, b"\\u0000", b"null"]))
                )
            case _:
                raw[at : at + 2] = reversed(raw[at : at + 2])
        if not raw:
            break
    mutant = tmp_path / "mutant"
    mutant.write_bytes(bytes(raw))
    try:
        weights = load_weights(mutant, SHAPES)
    except Refused:
        return
    assert {name: tuple(tensor.shape) for name, tensor in weights.items()} == SHAPES


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.binary(max_size=200), announce=st.booleans())
def test_random_bytes_are_read_or_refused(tmp_path: Path, raw: bytes, announce: bool) -> None:
    path = tmp_path / "noise"
    path.write_bytes((struct.pack("<Q", len(raw)) if announce else b"") + raw)
    with suppress(Refused):
        read_header(path)


def test_numpy_and_torch_see_the_same_bytes(path: Path) -> None:
    header = read_header(path)
    entry = header.tensors["fc.weight"]
    mapped = np.memmap(path, "<f4", "r", header.start + entry.begin, entry.shape)
    assert mapped.tolist() == WEIGHTS["fc.weight"].tolist()


def test_a_value_that_the_networks_type_cannot_hold_is_refused(tmp_path: Path) -> None:
    network = torch.nn.Linear(2, 1)
    save_weights(tmp_path / "w", {"weight": torch.full((1, 2), 1e300, dtype=torch.float64), "bias": torch.zeros(1)})
    with pytest.raises(Refused, match=r'"weight" holds values that torch.float32 cannot hold'):
        load_into(network, tmp_path / "w")
