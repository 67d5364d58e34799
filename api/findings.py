"""What validation found wrong with a body: each with a JSON pointer into what was sent, and the nearest names where a name is wrong."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

_QUOTED = re.compile(r"'([^']*)'")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: where (a JSON pointer), one word for it, a sentence, and what to try."""

    pointer: str
    code: str
    detail: str
    hint: str = ""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names what was probably meant, or all there is when nothing is near."""
    names = sorted(known)
    close = get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"there is {', '.join(names)}" if names else ""


def pointer(loc: Sequence[str | int], body: Any, *, missing: bool = False) -> str:
    """The JSON pointer of a location in `body`.

    A location also holds what is not in the body (which member of a union was tried): such parts are left out. With `missing`
    the last part is a key that should be there and is not.
    """
    parts: list[str] = []
    here = body
    for depth, part in enumerate(loc):
        if _holds(here, part):
            here = here[part]
        elif not (missing and depth == len(loc) - 1):
            continue
        parts.append(str(part).replace("~", "~0").replace("/", "~1"))
    return "".join(f"/{part}" for part in parts)


def _holds(here: Any, part: str | int) -> bool:
    return isinstance(here, Mapping) and part in here if isinstance(part, str) else isinstance(here, list) and part < len(here)


def findings(errors: Sequence[Mapping[str, Any]], body: Any, shape: Any) -> list[Finding]:
    """One finding a place: `errors` as pydantic gives them, `shape` the annotation that the body was checked against."""
    found: dict[str, Finding] = {}
    for error in errors:
        each = _finding(error, body, shape)
        before = found.get(each.pointer)
        if before is None:
            found[each.pointer] = each
        elif each.pointer and each.detail not in before.detail:
            found[each.pointer] = Finding(each.pointer, before.code, f"{before.detail}; or: {each.detail}", before.hint or each.hint)
    return list(found.values())


def _finding(error: Mapping[str, Any], body: Any, shape: Any) -> Finding:
    source, *loc = error["loc"] or ("body",)
    kind, detail = str(error["type"]), _sentence(error)
    if source != "body":
        return Finding("", kind, f"the {source} parameter {'.'.join(map(str, loc))}: {detail}")
    if kind == "json_invalid":
        return Finding("", kind, f"the body is not JSON: {error['ctx']['error']} at character {loc[0]}")
    where = pointer(loc, body, missing=kind == "missing")
    if not where:
        detail = f"the body: {detail}"
    if kind.startswith("union_tag_"):  # the word that says which of several things it is: the name of a method, of an optimiser
        context = error["ctx"]
        where += f"/{context['discriminator'].strip(chr(39))}"
        known = _QUOTED.findall(context.get("expected_tags", ""))
        there = f"there is no {context['tag']!r} here" if "tag" in context else "it needs a name, which says what it is"
        return Finding(where, kind, there, nearest(context.get("tag", ""), known))
    if kind in {"literal_error", "enum"}:
        return Finding(where, kind, detail, nearest(str(error.get("input")), _QUOTED.findall(error["ctx"]["expected"])))
    if kind != "extra_forbidden":
        return Finding(where, kind, detail)
    name = str(loc[-1])
    fields = {field for model in _models_at(shape, loc[:-1]) for field in model.model_fields}
    return Finding(where, kind, f"there is no field {name!r} here", nearest(name, fields))


def _sentence(error: Mapping[str, Any]) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    given = error.get("input")
    if error["type"] != "missing" and isinstance(given, (str, int, float)):
        message += f" (given: {str(given)[:80]})"
    return message


def _models_at(shape: Any, loc: Sequence[str | int]) -> set[type[BaseModel]]:
    """The models that may stand at a location below `shape`."""
    models = set(_models(shape))
    for part in loc:
        fields = [each.model_fields[str(part)] for each in models if part in each.model_fields]
        below = {model for field in fields for model in _models(field.annotation)}
        named = {each for each in models if any((part,) == get_args(field.annotation) for field in each.model_fields.values())}
        models = below or named or models
    return models


def _models(shape: Any) -> Iterable[type[BaseModel]]:
    """The models inside an annotation: through unions, sequences, mappings and Annotated."""
    if isinstance(shape, type) and issubclass(shape, BaseModel):
        yield shape
    elif get_origin(shape) is Annotated:
        yield from _models(get_args(shape)[0])
    elif get_origin(shape) in (Union, UnionType, list, tuple, dict, Mapping, Sequence):
        for each in get_args(shape):
            yield from _models(each)
