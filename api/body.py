"""What a JSON body may be: nested within reason, each key once, and nothing that JSON or a database cannot hold."""

import json
import re
from typing import Any

from api.problems import Problem

# A string (even one that never ends, so that no text makes the search go back) or a bracket.
_TOKENS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
_DIGITS = 400
"""More than the largest number that can be computed with has."""


def check_json(body: bytes, max_depth: int) -> None:
    """Refuse what no route could take; text that is not JSON at all passes, for the framework names the place."""
    try:
        text = body.decode()
    except UnicodeDecodeError as wrong:
        raise Problem(400, f"the body is not UTF-8: {wrong.reason} at byte {wrong.start}") from wrong
    depth = 0
    for token in _TOKENS.finditer(text):
        depth += (token[0] in "[{") - (token[0] in "]}")
        if depth > max_depth:
            raise Problem(422, f"the body is nested more than {max_depth} deep", hint="no field of this service nests so deeply")
    try:
        value = json.loads(text, object_pairs_hook=_each_once, parse_constant=_not_a_number, parse_float=_finite, parse_int=_whole)
    except json.JSONDecodeError:
        return
    except ValueError as wrong:
        raise Problem(422, str(wrong)) from wrong
    if "\\u" in text and not _storable(value):
        raise Problem(
            422, "the body holds a text with a NUL character or half of a surrogate pair", hint="no database can keep it: leave it out"
        )


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    whole = dict(pairs)
    if len(whole) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice in one object")
    return whole


def _not_a_number(word: str) -> float:
    raise ValueError(f"{word} is not JSON")


def _whole(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise ValueError(f"a number of {len(digits)} digits is longer than any that a field takes")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if number - number != 0:
        raise ValueError(f"{digits[:40]} is larger than any number that can be computed with")
    return number


def _storable(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, dict):
        return all(_storable(name) and _storable(item) for name, item in value.items())
    return all(map(_storable, value)) if isinstance(value, list) else True
