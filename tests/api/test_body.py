"""JSON that no route could take is refused before any route sees it."""

import json
from collections.abc import Callable
from contextlib import suppress

import pytest

from api.body import check_json
from api.problems import Problem


@pytest.mark.parametrize(
    "body", [b"{}", b'{"a": [1, 2.5, "x", null, true]}', '{"ключ": "значение"}'.encode(), b'{"a": "[[[[[["}', b"not json"]
)
def test_what_is_reasonable_passes(body: bytes) -> None:
    check_json(body, 3)


def test_the_depth_is_counted_exactly() -> None:
    check_json(b"[" * 20 + b"]" * 20, 20)
    with pytest.raises(Problem, match="more than 20 deep"):
        check_json(b"[" * 21 + b"]" * 21, 20)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"a": 1, "a": 2}', "'a' stands twice"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": -Infinity}', "Infinity is not JSON"),
        (b'{"a": 1e999}', "larger than any number"),
        (b'{"a": ' + b"9" * 5000 + b"}", "5000 digits is longer than any"),
        (rb'{"a": "\u0000"}', "NUL"),
        (rb'{"\ud800": 1}', "surrogate"),
        (rb'[["\udc00"]]', "surrogate"),
    ],
)
def test_what_json_or_a_database_cannot_hold_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(Problem, match=reason) as wrong:
        check_json(body, 20)
    assert wrong.value.status == 422


def test_a_pair_of_surrogates_is_one_character() -> None:
    check_json(rb'{"a": "\ud83d\ude00"}', 20)


def test_bytes_that_are_no_text_are_a_bad_request() -> None:
    with pytest.raises(Problem, match="UTF-8") as wrong:
        check_json(b'{"a": "\xff"}', 20)
    assert wrong.value.status == 400


@pytest.mark.parametrize(
    "make",
    [lambda n: b"[" * n, lambda n: b"[]" * (n // 2), lambda n: b'"' + rb"\"" * (n // 2), lambda n: b'"' * n, lambda n: b"\\" * n],
    ids=["opened", "closed", "escaped quotes", "quotes", "backslashes"],
)
def test_a_mebibyte_of_hostile_text_is_answered(make: Callable[[int], bytes]) -> None:
    with suppress(Problem):  # any search that goes back would be at it for hours
        check_json(make(1 << 20), 20)


def test_every_finite_number_passes() -> None:
    check_json(json.dumps({"a": [0, -1.5, 1e308, 2**53]}).encode(), 20)
