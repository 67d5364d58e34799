"""Datasets as .npz: what each array may be, and how the rest is refused."""

import io
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from core.data import DatasetReport, ingest, open_dataset
from core.data.report import Duplicates
from core.errors import Refused
from tests.core.data.pictures import arrays, pack

Y = np.array([0, 1, 2, 0, 1, 2])
IMAGES = np.arange(6 * 2 * 2 * 3, dtype=np.uint8).reshape(6, 2, 2, 3)


def bring(tmp_path: Path, request: Any = None, **named: NDArray[Any]) -> DatasetReport:
    path = arrays(tmp_path / "data.npz", **named)
    return ingest(path, {"format": "npz", **(request or {})}, tmp_path / "out.safetensors")


def four(x: NDArray[Any], y: NDArray[Any] = Y) -> dict[str, NDArray[Any]]:
    return {"x_train": x, "y_train": y, "x_test": x[:3], "y_test": y[:3]}


def stored(tmp_path: Path, split: str) -> NDArray[Any]:
    return open_dataset(tmp_path / "out.safetensors").split(split).x


def test_colour_images_are_kept_with_their_measurements(tmp_path: Path) -> None:
    report = bring(tmp_path, **four(IMAGES))
    assert report == DatasetReport(
        input=(3, 2, 2),
        classes=3,
        class_names=("0", "1", "2"),
        counts={"train": 6, "test": 3},
        per_class={"train": (2, 2, 2), "test": (1, 1, 1)},
        mean=report.mean,
        std=report.std,
        range=(0, 1),
        dtype="uint8",
        notes=("3 of 3 samples of the test split are in the train split too: figures on them flatter the student.",),
        duplicates=Duplicates(
            within={"train": 0, "test": 0},
            across={"train/test": 3},
            pairs=(("train[0]", "test[0]"), ("train[1]", "test[1]"), ("train[2]", "test[2]")),
        ),
    )
    np.testing.assert_allclose(report.mean, (IMAGES / 255).mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(report.std, (IMAGES / 255).std((0, 1, 2)), rtol=1e-12)
    assert np.array_equal(stored(tmp_path, "train"), IMAGES)
    assert np.array_equal(stored(tmp_path, "test"), IMAGES[:3])


def test_channels_first_becomes_channels_last(tmp_path: Path) -> None:
    report = bring(tmp_path, **four(IMAGES.transpose(0, 3, 1, 2).copy()))
    assert report.input == (3, 2, 2)
    assert np.array_equal(stored(tmp_path, "train"), IMAGES)


def test_grey_images_get_one_channel_and_vectors_stay_vectors(tmp_path: Path) -> None:
    assert bring(tmp_path, **four(IMAGES[..., 0].copy())).input == (1, 2, 2)
    assert stored(tmp_path, "train").shape == (6, 2, 2, 1)
    report = bring(tmp_path, **four(IMAGES.reshape(6, 12)))
    assert report.input == (12,)
    assert len(report.mean) == 12


def test_a_shape_that_reads_both_ways_asks_for_the_layout(tmp_path: Path) -> None:
    x = np.zeros((6, 3, 5, 3), np.uint8)
    with pytest.raises(Refused, match="both ways") as refused:
        bring(tmp_path, **four(x))
    assert refused.value.where == "/layout"
    assert bring(tmp_path, {"layout": "NCHW"}, **four(x)).input == (3, 5, 3)
    assert bring(tmp_path, {"layout": "NHWC"}, **four(x)).input == (3, 3, 5)


@pytest.mark.parametrize("dtype", ["<f4", "<f8", ">f4", ">f8"])
def test_floats_become_float32_in_their_own_range(tmp_path: Path, dtype: str) -> None:
    x = np.random.default_rng(0).normal(3, 2, (600, 5)).astype(dtype)
    report = bring(tmp_path, x_train=x, y_train=np.arange(600) % 3, x_test=x[:3] * 9, y_test=Y[:3])
    assert stored(tmp_path, "train").dtype == np.float32
    np.testing.assert_allclose(stored(tmp_path, "train"), x, rtol=1e-6)
    np.testing.assert_allclose(report.mean, x.mean(0), rtol=1e-6)
    np.testing.assert_allclose(report.std, x.std(0), rtol=1e-6)
    assert report.range == pytest.approx((min(x.min(), 9 * x[:3].min()), 9 * x[:3].max()))
    assert any("float64" in note for note in report.notes) == (dtype[2] == "8")


def test_many_pieces_give_the_moments_of_the_whole(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(-5, 3, (30, 2, 300, 300, 1)).astype(np.float32)[:, 0] * np.arange(1, 31)[:, None, None, None]
    x = x.astype(np.float32)
    report = bring(tmp_path, x_train=x, y_train=np.arange(30) % 2, x_test=x[:2], y_test=np.array([0, 1]))
    np.testing.assert_allclose((report.mean[0], report.std[0]), (x.mean(dtype=np.float64), x.std(dtype=np.float64)), rtol=1e-9)


def test_without_a_test_split_a_stratified_fifth_is_set_aside_and_said(tmp_path: Path) -> None:
    x = np.arange(100, dtype=np.uint8)[:, None] * np.ones(2, np.uint8)
    y = np.repeat([0, 1], [60, 40])
    report = bring(tmp_path, x=x, y=y)
    assert report.counts == {"train": 80, "test": 20}
    assert report.per_class == {"train": (48, 32), "test": (12, 8)}
    assert "stratified fifth, 20 of 100 samples" in report.notes[0]
    both = np.concatenate([stored(tmp_path, "train")[:, 0], stored(tmp_path, "test")[:, 0]])
    assert sorted(both.tolist()) == list(range(100))
    labels = open_dataset(tmp_path / "out.safetensors").split("test").y
    assert np.array_equal(labels, y[stored(tmp_path, "test")[:, 0]])


def test_a_validation_split_is_kept(tmp_path: Path) -> None:
    report = bring(tmp_path, **four(IMAGES), x_validation=IMAGES[3:], y_validation=Y[3:])
    assert report.counts == {"train": 6, "validation": 3, "test": 3}
    assert np.array_equal(open_dataset(tmp_path / "out.safetensors").split("test").index, [9, 10, 11])


def test_declared_classes_and_names_are_held_against_the_labels(tmp_path: Path) -> None:
    report = bring(tmp_path, {"classes": 3, "class_names": ["a", "b", "c"]}, **four(IMAGES))
    assert report.class_names == ("a", "b", "c")
    for request, where, message in (
        ({"classes": 2}, "/classes", "label 2 at row 2 of y_train is out of range for 2 classes; the labels need 3"),
        ({"classes": 4}, "/classes", "the labels have 3 classes, but classes says 4"),
        ({"class_names": ["a", "b", "c", "d"]}, "/class_names", "class_names has 4 names"),
    ):
        with pytest.raises(Refused, match=message) as refused:
            bring(tmp_path, request, **four(IMAGES))
        assert refused.value.where == where


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y_train": np.array([0, 1, -1, 0, 1, 2])}, "label -1 at row 2 of y_train"),
        ({"y_train": np.array([0, 1, 2**40, 0, 1, 2])}, "label 1099511627776 at row 2 of y_train"),
        ({"y_train": np.array([0, 1, 2, 0, 1, 2], np.uint64) + np.uint64(2**63)}, "out of range"),
        ({"y_train": np.array([0, 1, 3, 0, 1, 3])}, '"2" has fewer than 1'),
        ({"y_train": np.zeros(6, np.int64), "y_test": np.zeros(3, np.int64)}, "1 class;"),
        ({"y_train": Y.astype(np.float32)}, "dtype float32"),
        ({"y_train": np.eye(3, dtype=np.int64)[Y]}, r"shape \(6, 3\)"),
        ({"y_train": Y[:5]}, "6 samples"),
        ({"x_train": IMAGES.astype(np.complex64)}, "dtype complex64"),
        ({"x_train": IMAGES[:, :, :1]}, r'"x_test" is uint8 \(2, 2, 3\)'),
        ({"x_train": IMAGES.astype(np.float32)}, '"x_test" is uint8'),
        ({"x_train": IMAGES[:0], "y_train": Y[:0]}, "empty"),
        ({"x_train": np.asfortranarray(IMAGES)}, "column by column"),
        ({"x_train": np.array([{"a": 1}] * 6, object)}, "Python objects"),
        ({"x_train": np.zeros(6, [("a", "u1")])}, "Python objects or records"),
        ({"x_train": np.array(3)}, "empty"),
        ({"x_train": np.zeros((6, 1, 1, 1, 1), np.uint8)}, "has the shape"),
        ({"y_test": Y[:3] + 1, "y_train": Y}, '"3" has fewer than 1'),
        ({"images": IMAGES}, 'holds "images"'),
        ({"x": IMAGES}, "lacks y"),
    ],
)
def test_arrays_that_are_no_dataset_are_refused_by_name(tmp_path: Path, change: dict[str, NDArray[Any]], message: str) -> None:
    with pytest.raises(Refused, match=message):
        bring(tmp_path, **{**four(IMAGES), **change})
    assert not (tmp_path / "out.safetensors").exists()


def test_a_missing_array_is_named(tmp_path: Path) -> None:
    named = four(IMAGES)
    del named["y_test"]
    with pytest.raises(Refused, match="lacks y_test"):
        bring(tmp_path, **named)


def test_a_value_that_is_not_finite_is_refused_with_its_row_and_leaves_no_file(tmp_path: Path) -> None:
    x = np.ones((6, 4))
    for value in (np.nan, 1e300):
        x[4, 1] = value
        with pytest.raises(Refused, match="sample 4 of the train split"):
            bring(tmp_path, **four(x))
    assert [file.name for file in tmp_path.iterdir()] == ["data.npz"]


def npy(shape: str, extra: bytes = b"", version: bytes = b"\x01\x00", length: int | None = None, descr: str = "'|u1'") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    size = (len(header) if length is None else length).to_bytes(2 if version[0] == 1 else 4, "little")
    return b"\x93NUMPY" + version + size + header + extra


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (npy("(1000000, 1000000)"), "should have 1,000,000,000,000 bytes"),
        (npy("(6, -1)"), "empty"),
        (npy("(6, 2)", b"\0" * 11), "should have 12"),
        (npy("(6, 2)", b"\0" * 13), "should have 12"),
        (npy("(6, 2)", version=b"\x02\x00", length=1 << 30), "would have 1,073,741,824 bytes"),
        (npy("(6, 2)", length=9999), "ends"),
        (npy("('a', 2)"), "damaged"),
        (npy("(6, 2)", descr="'|O'"), "Python objects"),
        (npy("(6, 2)", descr="__import__('os')"), "damaged"),
        (npy("(6, 2)", version=b"\x09\x00"), "not a NumPy array"),
        (b"\x80\x04K\x01.", "ends"),
        (b"not numpy at all", "not a NumPy array"),
    ],
)
def test_a_header_that_lies_is_refused_before_anything_is_allocated(tmp_path: Path, member: bytes, message: str) -> None:
    buffer = io.BytesIO()
    np.save(buffer, Y)
    path = pack(tmp_path / "data.npz", {"x.npy": member, "y.npy": buffer.getvalue()})
    with pytest.raises(Refused, match=message):
        ingest(path, {"format": "npz"}, tmp_path / "out.safetensors")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_mutation_of_a_npz_does_anything_but_read_or_refuse(tmp_path: Path, data: st.DataObject) -> None:
    whole = tmp_path / "whole.npz"
    if not whole.exists():
        np.savez(whole, allow_pickle=False, **four(IMAGES))
    raw = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        if data.draw(st.booleans()):
            raw[at] ^= 1 << data.draw(st.integers(0, 7))
        else:
            raw[at:at] = data.draw(st.binary(max_size=8))
    mutant = tmp_path / "mutant.npz"
    mutant.write_bytes(bytes(raw))
    with suppress(Refused):
        ingest(mutant, {"format": "npz"}, tmp_path / "out.safetensors")


def test_two_classes_of_one_name_are_refused(tmp_path: Path) -> None:
    path = arrays(tmp_path / "data.npz", x=np.zeros((20, 4), np.uint8), y=np.arange(20) % 2)
    with pytest.raises(Refused, match="same name") as refused:
        ingest(path, {"format": "npz", "class_names": ["a", "a"]}, tmp_path / "out.safetensors")
    assert refused.value.where == "/class_names"
