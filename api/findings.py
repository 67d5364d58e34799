"""What validation found wrong with a body: each with a JSON pointer into what was sent, and the nearest names where a name is wrong."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

_QUOTED = re.compile(r"'([^']*)'")
_PREFIX = re.compile(r"\^(?:\(([a-z|]+)\)_|([a-z]+)_)\[")
"""What the pattern of an id begins with: one kind of thing, or one of several."""
_KINDS = {"tuple_type": "a list", "model_type": "an object", "model_attributes_type": "an object", "dict_type": "an object"}
"""What a body is made of, where pydantic names Python's words for it."""

_SIZED = {"Tuple": "List", "Dictionary": "Object", " after validation": ""}
_PYTHONS = re.compile("|".join(_SIZED))


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
    told = [_finding(error, body, shape) for error in errors]
    for each in told:
        if _mistyped(each) and any(_says_more(other, each.pointer) for other in told):
            continue  # of a union whose other member took the value's type: what that one found is what is wrong
        if each.code == "too_short" and any(other.pointer.startswith(f"{each.pointer}/") for other in told):
            continue  # it is short because its items were refused, and those are told
        before = found.get(each.pointer)
        if before is None:
            found[each.pointer] = each
        elif each.pointer and each.detail not in before.detail:
            found[each.pointer] = Finding(each.pointer, before.code, f"{before.detail}; or: {each.detail}", before.hint or each.hint)
    return list(found.values())


def _mistyped(finding: Finding) -> bool:
    return finding.code.endswith(("_type", "_parsing")) and bool(finding.pointer)


def _says_more(other: Finding, place: str) -> bool:
    return other.pointer.startswith(f"{place}/") or (other.pointer == place and not _mistyped(other))


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
    if kind.startswith("union_tag_"):
        return _unnamed(error, loc, where, shape)
    hint = ""
    if kind in {"literal_error", "enum"}:
        hint = nearest(str(error.get("input")), _QUOTED.findall(error["ctx"]["expected"]))
    elif kind == "string_pattern_mismatch" and (prefix := _PREFIX.match(error["ctx"]["pattern"])):
        kinds = " or ".join(f"{each}_" for each in (prefix[1] or prefix[2]).split("|"))
        detail, hint = f"{str(error['input'])[:80]!r} is no such id", f"the ids that fit here begin with {kinds}"
    elif kind == "extra_forbidden":
        # A union's other members may have the name: to offer it again would be no help.
        fields = {field for model in _models_at(shape, loc[:-1]) for field in model.model_fields} - {str(loc[-1])}
        detail, hint = f"there is no field {str(loc[-1])!r} here", nearest(str(loc[-1]), fields)
    return Finding(where, kind, detail, hint)


def _unnamed(error: Mapping[str, Any], loc: Sequence[str | int], where: str, shape: Any) -> Finding:
    """What has no known word that says which of several things it is: the name of a method, of an optimiser."""
    context = error["ctx"]
    where += f"/{context['discriminator'].strip(chr(39))}"
    if "tag" not in context:
        return Finding(where, error["type"], "it needs a name, which says what it is", nearest("", _names_at(shape, loc)))
    known = _QUOTED.findall(context["expected_tags"])
    return Finding(where, error["type"], f"there is no {context['tag']!r} here", nearest(str(context["tag"]), known))


def _sentence(error: Mapping[str, Any]) -> str:
    wanted = _KINDS.get(error["type"])
    message = f"input should be {wanted}" if wanted else str(error["msg"]).removeprefix("Value error, ")
    if error["type"] in {"too_short", "too_long"}:
        message = _PYTHONS.sub(lambda found: _SIZED[found[0]], message).removesuffix(", not more")
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


def _names_at(shape: Any, loc: Sequence[str | int]) -> set[str]:
    """The names of the things that may stand at a location below `shape`."""
    fields = (field for model in _models_at(shape, loc) if (field := model.model_fields.get("name")))
    return {str(name) for field in fields if get_origin(field.annotation) is Literal for name in get_args(field.annotation)}


def _models(shape: Any) -> Iterable[type[BaseModel]]:
    """The models inside an annotation: through unions, sequences, mappings and Annotated."""
    if isinstance(shape, type) and issubclass(shape, BaseModel):
        yield shape
    elif get_origin(shape) is Annotated:
        yield from _models(get_args(shape)[0])
    elif get_origin(shape) in (Union, UnionType, list, tuple, dict, Mapping, Sequence):
        for each in get_args(shape):
            yield from _models(each)
