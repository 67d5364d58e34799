"""Names for rows."""

import re

from db.ids import base32, new_id


def test_an_id_says_what_it_is_and_is_a_uuid7() -> None:
    id = new_id("job")
    assert re.fullmatch(r"job_[0-9a-hjkmnp-tv-z]{26}", id)
    value = sum("0123456789abcdefghjkmnpqrstvwxyz".index(digit) << 5 * place for place, digit in enumerate(reversed(id[4:])))
    assert value < 1 << 128
    assert (value >> 76 & 0xF, value >> 62 & 0b11) == (7, 0b10)


def test_ids_are_different_and_sort_by_the_time_they_were_made() -> None:
    ids = [new_id("job") for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert ids[0] < ids[-1]
    assert new_id("job")[:12] >= ids[0][:12]


def test_numbers_as_base32_sort_like_the_numbers() -> None:
    assert base32(0, digits=2) == "00"
    assert base32(35, digits=2) == "13"
    texts = [base32(value, digits=3) for value in range(0, 32768, 7)]
    assert texts == sorted(texts)
