"""A page about each method for somebody who has not read its paper, and one about networks, made from the code itself."""

import inspect
import json
import sys
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from core.layers import LAYERS, Layer
from core.method import Method
from core.networks import Family

_BEGINNINGS = {"Use it": "use", "Cost:": "cost", "Reference:": "reference"}
_PAIRS = {
    "out": "what the stages of the two networks give",
    "pre": "what enters the activation behind each stage of the two networks",
}
_WORDS = """## The words of these pages

B, C, H, W are the samples of a batch, channels, height and width. L is a *term*, one summand of the loss; its *weight* says how much it
counts beside the labels. A *tap* is a place inside a network, a *pair* one of the teacher and the one of the student that is compared with
it, a *stage* a stretch of a network whose maps have one size. A *transfer fit* comes before the training and has epochs of its own: the
student learns from the teacher alone there, without labels. A *connector*, or regressor, is a small layer that brings the student's map to
the teacher's width; it learns with the student, and no export holds it.

## Few images, few steps

An epoch has as many steps as batches fit into the images: 180 images in batches of 128, the default, make 2. Ten such epochs left the
README's student guessing on its digits (0.10 on 600 test images, one seed), with a teacher and without. `retort submit --dry-run` tells
the steps before anything runs; a smaller `recipe.batch_size` makes more of them. Published weights were chosen for images of 32 x 32 and
tens of thousands of steps: where a page says that small maps want less, take less."""
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


@dataclass(frozen=True, slots=True)
class Docs:
    """What the docstring of a method's file says: the whole of it and its parts, as Markdown; a part that is missing is empty.

    The first line is the `title`; the `idea` with its formula follows; `use` begins with "Use it", `cost` after "Cost:"; the
    values computed `by_hand`, a doctest, stand between that and the `reference`, after "Reference:".
    """

    text: str
    title: str
    idea: str
    use: str
    cost: str
    by_hand: str
    reference: str


def docs_of(method: type[Method]) -> Docs:
    """The docstring of the file that holds a method, taken apart."""
    text = inspect.cleandoc(sys.modules[method.__module__].__doc__ or "")
    title, _, rest = text.partition("\n")
    parts: dict[str, list[str]] = {"idea": [], "use": [], "cost": [], "by_hand": [], "reference": []}
    here = "idea"
    for paragraph in rest.strip("\n").split("\n\n"):
        begins = next((part for beginning, part in _BEGINNINGS.items() if paragraph.startswith(beginning)), None)
        # The cost is one paragraph: whatever comes between it and the reference is the example by hand.
        here = begins or ("by_hand" if here == "cost" else here)
        parts[here].append(_fenced(paragraph) if paragraph.startswith(">>>") else paragraph)
    joined = {part: "\n\n".join(paragraphs) for part, paragraphs in parts.items()}
    for beginning in ("Cost:", "Reference:"):
        part = _BEGINNINGS[beginning]
        joined[part] = _sentence(joined[part].removeprefix(beginning))
    return Docs(text=text, title=title, **joined)


def page(name: str, method: type[Method]) -> str:
    """The page of one method, as Markdown."""
    docs = docs_of(method)
    sections = {
        "When to use it": docs.use,
        "Cost": docs.cost,
        "Parameters": _parameters(method),
        "Pairs of taps": _pairs(method),
        "In a job": _entries(name, method),
        "By hand": docs.by_hand and f"{docs.by_hand}\n\nThese lines run as a test in `core/methods/{name}.py`.",
        "Reference": docs.reference,
    }
    parts = [f"# `{name}`", f"**{docs.title}**", docs.idea]
    for heading, body in sections.items():
        if body:
            parts += [f"## {heading}", body]
    return "\n\n".join(parts) + "\n"


def pages(methods: Mapping[str, type[Method]]) -> dict[str, str]:
    """The page of every method by the name of its file, and README.md, which lists them."""
    rows = [(f"[`{name}`]({name}.md)", docs_of(method).title) for name, method in methods.items()]
    index = [
        "# Methods",
        "Each page is made from the method's file in `core/methods/`: change that, and run `python -m core methods --pages docs/methods`.",
        _table(("method", "what it is"), rows),
        _WORDS,
    ]
    return {"README.md": "\n\n".join(index) + "\n", **{f"{name}.md": page(name, method) for name, method in methods.items()}}


def families_page(families: Mapping[str, type[Family]]) -> str:
    """The page of all families of networks with their fields, and of all layers that a declared network may be made of."""
    parts = [
        "# Networks",
        "Made from `core/networks/` and `core/layers/`: change those, and run `python -m core families > docs/families.md`. "
        "How a network is declared, and what is refused: [architectures](architectures.md).",
        "## Families",
    ]
    for name, family in families.items():
        docs = inspect.cleandoc(family.__doc__ or "")
        parts += [f"### `{name}`", docs, _fields(family, {"family"}), f"Reference: {family.reference}."]
    parts += ["## Layers of a declared network", "Beside what is listed here each node has its `op`, a `name`, and perhaps `from`."]
    ops: dict[type[Layer], list[str]] = {}
    for op, layer in LAYERS.items():
        ops.setdefault(layer, []).append(op)
    for layer, names in ops.items():
        fields = _fields(layer, {"op", "name", "from"})
        parts += [f"### {', '.join(f'`{name}`' for name in names)}", inspect.cleandoc(layer.__doc__ or ""), *([fields] if fields else [])]
    return "\n\n".join(parts) + "\n"


def _fenced(example: str) -> str:
    return f"```python\n{example}\n```"


def _sentence(words: str) -> str:
    words = words.strip()
    return words[:1].upper() + words[1:]


def _pairs(method: type[Method]) -> str:
    if method.pairs_by is None:
        return ""
    return (
        "A tap is a place inside a network, named by its module: `block1.relu` is what that module gives, `block1.relu:in` what enters it. "
        "A stage is a stretch of a network whose maps have one size. "
        "`pairs` may name any places of the two networks: `retort taps ID` lists them. "
        f"Left out, they are made of {_PAIRS[method.pairs_by]}, where the maps have the same size, in order: "
        f"`retort pairs TEACHER ARCHITECTURE` and `GET /v1/pairs` show these, as the kind `{method.pairs_by}`. "
        "Which of them are taken stands beside `pairs` in the table above."
    )


def _parameters(method: type[Method]) -> str:
    known: Mapping[str, Any] = method.model_json_schema().get("$defs", {})
    table = _fields(method, {"name"})
    if not table:
        return "It has none."
    # An object stands in the table by its title, and below it in full.
    notes = [f"{each['title']}: {each['description']}" for each in known.values() if each["type"] == "object" and "description" in each]
    return "\n\n".join([table, *notes])


def _fields(model: type[BaseModel], hidden: Set[str]) -> str:
    """A table of the fields of a model; nothing where there are none."""
    schema = model.model_json_schema()
    known: Mapping[str, Any] = schema.get("$defs", {})
    rows = []
    for name, field in schema["properties"].items():
        if name not in hidden:
            default = f"`{json.dumps(field['default'])}`" if "default" in field else "required"
            rows.append((f"`{name}`", _type(field, known), default, field.get("description", "")))
    return _table(("name", "type", "default", "meaning"), rows) if rows else ""


def _type(schema: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """A JSON schema in a few words."""
    match schema:
        case {"$ref": where}:
            words = _type(known[where.rpartition("/")[2]], known)
        case {"discriminator": _}:
            words = "nodes"
        case {"anyOf": several}:
            words = " or ".join(_type(each, known) for each in several)
        case {"enum": values}:
            words = " or ".join(f"`{json.dumps(each)}`" for each in values)
        case {"const": value}:
            words = f"`{json.dumps(value)}`"
        case {"prefixItems": places}:
            words = f"[{', '.join(each.get('title', '').lower() or _type(each, known) for each in places)}]"
        case {"items": each}:
            words = f"list of {_type(each, known)}"
        case {"type": "object", "title": title}:
            words = str(title)
        case _:
            bounds = [f"{sign} {_number(schema[bound])}" for bound, sign in _BOUNDS.items() if bound in schema]
            words = f"{schema['type']} {', '.join(bounds)}".strip()
    return words


def _number(value: float) -> str:
    return f"{int(value):,}" if float(value).is_integer() else f"{value:g}"


def _entries(name: str, method: type[Method]) -> str:
    teacher = "The job must name a teacher." if method.needs_teacher else "The job need not name a teacher."
    entries = "\n".join(json.dumps({"name": name, **example}) for example in method.examples)
    plain = (f":{field}={json.dumps(value)}" for field, value in method.examples[0].items() if isinstance(value, int | float))
    return (
        f"Each line is an entry of its `methods`, beside which others may stand; what is left out has its default. {teacher}\n\n"
        f"```json\n{entries}\n```\n\nOn the command line: `retort submit --method {name}{next(plain, '')} …`."
    )


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
