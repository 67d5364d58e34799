"""Datasets as CSV: what a table may be, and how the rest is refused by line and column."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.data import DatasetReport, ingest, open_dataset
from core.data.csv import MAX_RECORD
from core.errors import Refused

ROWS = "".join(f"{i},{i / 4},{'cat' if i % 2 else 'dog'}\n" for i in range(10))


def bring(tmp_path: Path, text: str | bytes, **request: Any) -> DatasetReport:
    path = tmp_path / "data.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return ingest(path, {"format": "csv", **request}, tmp_path / "out.safetensors")


def samples(tmp_path: Path, split: str) -> list[tuple[list[float], int]]:
    rows = open_dataset(tmp_path / "out.safetensors").split(split)
    return list(zip(rows.x.tolist(), rows.y.tolist(), strict=True))


def test_a_table_becomes_vectors_with_sorted_classes_and_a_test_split(tmp_path: Path) -> None:
    report = bring(tmp_path, "a,b,label\n" + ROWS)
    assert (report.input, report.class_names, report.counts) == ((2,), ("cat", "dog"), {"train": 8, "test": 2})
    assert "stratified fifth" in report.notes[0]
    everything = samples(tmp_path, "train") + samples(tmp_path, "test")
    assert sorted(everything) == [([i, i / 4], 0 if i % 2 else 1) for i in range(10)]


def test_a_column_of_splits_sends_rows_where_it_says(tmp_path: Path) -> None:
    text = "split,x,y\ntrain,1,a\ntest,2,b\nval,3,a\ntrain,4,b\ntest,5,a\nvalidation,6,b\n"
    assert bring(tmp_path, text).counts == {"train": 2, "validation": 2, "test": 2}
    assert samples(tmp_path, "train") == [([1.0], 0), ([4.0], 1)]
    assert samples(tmp_path, "validation") == [([3.0], 0), ([6.0], 1)]
    assert samples(tmp_path, "test") == [([2.0], 1), ([5.0], 0)]


def test_the_label_column_is_the_named_one_else_label_else_the_last(tmp_path: Path) -> None:
    rows = "".join(f"{i % 2},{i % 3},{i % 4}\n" for i in range(24))
    assert bring(tmp_path, "a,b,c\n" + rows).classes == 4
    assert bring(tmp_path, "a,label,c\n" + rows).classes == 3
    assert bring(tmp_path, "a,label,c\n" + rows, label="a").classes == 2


def test_whole_numbers_are_sorted_as_numbers(tmp_path: Path) -> None:
    text = "x,label\n" + "".join(f"{i},{i % 11}\n" for i in range(22))
    assert bring(tmp_path, text).class_names == tuple(str(label) for label in range(11))


def test_quotes_a_byte_order_mark_windows_lines_and_blank_lines_are_read(tmp_path: Path) -> None:
    text = 'x,"the ""label"", long",label\r\n1," 2 ","a, b"\r\n\r\n3,4e0,"two\nlines"\r\n5,6,"a, b"\r\n7,8,"two\nlines"'
    report = bring(tmp_path, b"\xef\xbb\xbf" + text.encode())
    assert report.class_names == ("a, b", "two\nlines")
    everything = samples(tmp_path, "train") + samples(tmp_path, "test")
    assert sorted(x for x, _ in everything) == [[1, 2], [3, 4], [5, 6], [7, 8]]


def test_a_table_without_labels_is_all_features(tmp_path: Path) -> None:
    report = bring(tmp_path, "a,b\n" + "".join(f"{i},{-i}\n" for i in range(10)), labelled=False)
    assert (report.labelled, report.input, report.counts) == (False, (2,), {"train": 8, "test": 2})
    assert "a fifth" in report.notes[0]


@pytest.mark.parametrize(
    ("text", "request_", "where", "message"),
    [
        ("", {}, "/upload", "no column of features"),
        ("a,label\n", {}, "/upload", "no rows"),
        ("label\n1\n", {}, "/upload", "no column of features"),
        ("a,b,label\n1,2,x\n1,2\n", {}, "/upload", "line 3 has 2 fields, the header 3"),
        ("a,b,label\n1,2,x\n\n1,2,x,4\n", {}, "/upload", "line 4 has 4 fields, the header 3"),
        ("a,b,label\n1,2,x\n1,two,y\n1,2,x\n1,2,y\n", {}, "/upload", 'line 3, column "b": "two" is not a number'),
        ("a,b,label\n1,2,x\n1,,y\n1,2,x\n1,2,y\n", {}, "/upload", 'line 3, column "b": the cell is empty'),
        ("a,b,label\n1,2,x\n1,nan,y\n1,2,x\n1,2,y\n", {}, "/upload", 'line 3, column "b": "nan" is not a finite'),
        ("a,b,label\n1,2,x\n1,1e39,y\n1,2,x\n1,2,y\n", {}, "/upload", 'line 3, column "b": "1e39" is not a finite'),
        ("a,b,label\n1,2,x\n1,1_0,y\n1,2,x\n1,2,y\n", {}, "/upload", 'line 3, column "b": "1_0" is not a number'),
        ("a,label\n1,x\n2,\n", {}, "/upload", 'line 3: the label, in column "label", is empty'),
        ("a,label\n1," + "x" * 201 + "\n", {}, "/upload", "longer than 200"),
        ("a,a,label\n1,2,x\n", {}, "/upload", 'two columns are called "a"'),
        ("a;b;label\n1;2;x\n", {}, "/upload", "the header is one field"),
        ("a,split,label\n1,tarin,x\n", {}, "/upload", 'line 2: "tarin" in the column "split"'),
        ("a,split,label\n1,test,x\n1,test,y\n", {}, "/upload", "no row belongs to the train split"),
        ('a,label\n1,"x\n' + "2,y\n" * 20_000, {}, "/upload", "line .* is no CSV: field larger"),
        ('a,label\n1,"x', {}, "/upload", "line 2 is no CSV: unexpected end"),
        ("a,lable\n1,x\n", {"label": "label"}, "/label", 'there is no column "label"'),
        ("a,label\n1,x\n", {"label": "a", "labelled": False}, "/label", '"labelled" is false'),
        ("a\n1\n", {"classes": 2, "labelled": False}, "/classes", "has no labels"),
        ("a,label\n1,x\n2,y\n1,x\n2,y\n", {"classes": 3}, "/classes", "the label column has 2 classes"),
        ("a,label\n1,x\n2,y\n1,x\n2,y\n", {"class_names": ["x", "z"]}, "/class_names", '"y" is not among them'),
        ("a,label\n1,x\n2,y\n1,x\n", {}, "/upload", '"y" has fewer than 2'),
        ("a,b\n1,0.5\n2,0.7\n1,0.2\n", {}, "/label", 'the last column, "b", counts as the labels, and holds 3 different'),
    ],
)
def test_a_table_that_is_no_dataset_is_refused_by_line_and_column(
    tmp_path: Path, text: str, request_: dict[str, Any], where: str, message: str
) -> None:
    with pytest.raises(Refused, match=message) as refused:
        bring(tmp_path, text, **request_)
    assert refused.value.where == where
    assert [file.name for file in tmp_path.iterdir()] == ["data.csv"]


def test_bytes_that_are_no_text_are_refused_by_line(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="line 3 is not UTF-8"):
        bring(tmp_path, b"a,label\n1,x\n2,\xe9\n")


def test_a_line_without_an_end_is_refused_before_it_is_read_whole(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="more than 4,194,304 bytes"):
        bring(tmp_path, b"a,label\n" + b"1," * MAX_RECORD)


def test_many_quoted_lines_that_never_end_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"the record at line .* has more than"):
        bring(tmp_path, b"a,label\n" + b'"x\n\n",' * MAX_RECORD)


def test_a_column_of_numbers_to_predict_is_no_column_of_labels(tmp_path: Path) -> None:
    values = np.arange(100_001)
    with pytest.raises(Refused, match="more than 100,000 different") as refused:
        bring(tmp_path, "a,price\n" + "".join(f"1,{value}\n" for value in values))
    assert refused.value.where == "/label"
