"""A job spec in the making: a preset, a file, and flags, each over the one before."""

import json
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from retort.errors import Misused

Json = dict[str, Any]


class _Loader(yaml.SafeLoader):
    """YAML in which 5e-4 is a number, as everybody who writes a weight decay expects."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789"))


def read_document(path: Path) -> Json:
    """The mapping in a YAML or JSON file; `Misused` with the line where it cannot be read."""
    try:
        document = yaml.load(path.read_text(), Loader=_Loader)
    except OSError as wrong:
        raise Misused(f"cannot read {path}: {wrong.strerror or wrong}") from wrong
    except (yaml.YAMLError, UnicodeDecodeError) as wrong:
        raise Misused(f"{path} is neither YAML nor JSON: {wrong}") from wrong
    if not isinstance(document, dict):
        held = "is empty" if document is None else "holds a list" if isinstance(document, list) else "holds a single value"
        raise Misused(f"{path} {held}: it needs a mapping of fields")
    return document


def read_inline(text: str, *, what: str) -> Json:
    """A mapping given as JSON on the command line, or as the name of a file that holds it."""
    if not text.lstrip().startswith("{"):
        return read_document(Path(text))
    try:
        document = json.loads(text)
    except ValueError as wrong:
        raise Misused(f"the {what} is not JSON: {wrong}", hint="quote it for the shell: '{\"family\": …}'") from wrong
    if not isinstance(document, dict):
        raise Misused(f"the {what} is not a JSON object")
    return document


def value_of(text: str) -> Any:
    """A flag's value: JSON where it is JSON, else the text itself.

    >>> value_of("4"), value_of("5e-4"), value_of("[1, 2]"), value_of("official")
    (4, 0.0005, [1, 2], 'official')
    """
    try:
        return json.loads(text)
    except ValueError:
        return text


def method_of(text: str) -> Json:
    """A method as `--method` takes it: a name, then parameters.

    >>> method_of("kd:temperature=4,weight=0.9")
    {'name': 'kd', 'temperature': 4, 'weight': 0.9}
    >>> method_of('ab:pairs=[["layer2", "layer1"]],epochs=20')
    {'name': 'ab', 'pairs': [['layer2', 'layer1']], 'epochs': 20}
    """
    return _named(text, flag="--method", hint="write --method kd:temperature=4,weight=0.9")


def measure_of(text: str) -> str | Json:
    """A measure as `--evaluate` takes it: a name, which means its defaults, or a name and parameters.

    >>> measure_of("boundary")
    'boundary'
    >>> measure_of("fgsm:epsilons=[0, 0.01],clamp=false")
    {'name': 'fgsm', 'epsilons': [0, 0.01], 'clamp': False}
    """
    measure = _named(text, flag="--evaluate", hint="write --evaluate fgsm or --evaluate boundary:samples=64")
    return measure if len(measure) > 1 else str(measure["name"])


def _named(text: str, *, flag: str, hint: str) -> Json:
    name, _, rest = text.partition(":")
    thing: Json = {"name": name.strip()}
    for part in _split(rest):
        parameter, equals, value = part.partition("=")
        if not equals or not parameter.strip():
            raise Misused(f"{flag} {text}: {part!r} is not parameter=value", hint=hint)
        thing[parameter.strip()] = value_of(value.strip())
    return thing


def _split(text: str) -> list[str]:
    """The parts between commas that stand outside brackets and quotes."""
    parts, depth, quoted, start = [], 0, False, 0
    for position, character in enumerate(text):
        if character == '"':
            quoted = not quoted
        elif not quoted and character in "[{":
            depth += 1
        elif not quoted and character in "]}":
            depth -= 1
        elif not quoted and depth == 0 and character == ",":
            parts.append(text[start:position])
            start = position + 1
    parts.append(text[start:])
    return [part for part in parts if part.strip()]


def over(base: Mapping[str, Any], upper: Mapping[str, Any]) -> Json:
    """`upper` laid over `base`: mappings are joined, everything else is replaced. A mapping that says which of several things it is, by
    another `name` than below or as a `take` does by its one key, is replaced too: what was said of the other thing does not hold for it.

    >>> over({"recipe": {"epochs": 9, "seed": 1}}, {"recipe": {"epochs": 2}})
    {'recipe': {'epochs': 2, 'seed': 1}}
    >>> over({"optimizer": {"name": "sgd", "momentum": 0.9}}, {"optimizer": {"name": "adamw"}})
    {'optimizer': {'name': 'adamw'}}
    """
    joined = deepcopy(dict(base))
    for name, value in upper.items():
        below = joined.get(name)
        if isinstance(below, dict) and isinstance(value, Mapping) and not _another(name, below, value):
            joined[name] = over(below, value)
        else:
            joined[name] = deepcopy(value)
    return joined


def _another(name: str, below: Json, value: Mapping[str, Any]) -> bool:
    return name == "take" or value.get("name", below.get("name")) != below.get("name")


def put(document: Json, assignment: str) -> None:
    """Set one field by its path, as `--set` takes it.

    >>> spec = {"methods": [{"name": "kd"}]}
    >>> put(spec, "methods.0.temperature=2"); put(spec, "recipe.optimizer.lr=0.1"); spec
    {'methods': [{'name': 'kd', 'temperature': 2}], 'recipe': {'optimizer': {'lr': 0.1}}}
    """
    path, equals, text = assignment.partition("=")
    steps = path.strip().split(".")
    if not equals or not all(steps):
        raise Misused(f"--set {assignment}: not a path and a value", hint="write --set recipe.batch_size=64")
    here: Any = document
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        key: Any = int(step) if isinstance(here, list) and step.isdigit() else step
        if following is None:
            new: Any = value_of(text.strip())
        else:
            new = here[key] if _has(here, key) else {}
        if isinstance(here, dict) or (isinstance(here, list) and _has(here, key)):
            here[key] = new
        else:
            raise Misused(f"--set {assignment}: there is no {step!r} in {json.dumps(here)}")
        here = here[key]


def overrides(spec: Mapping[str, Any], given: Mapping[str, Any], assignments: Sequence[str]) -> Json:
    """What a clone of a job with this spec sets otherwise. The service replaces a list whole: to set a field in one, all of it is sent.

    >>> overrides({"methods": [{"name": "kd"}, {"name": "at"}]}, {"seed": 1}, ["methods.0.temperature=2", "name=hot"])
    {'seed': 1, 'methods': [{'name': 'kd', 'temperature': 2}, {'name': 'at'}], 'name': 'hot'}
    """
    document = deepcopy(dict(given))
    for assignment in assignments:
        first = assignment.partition("=")[0].split(".")[0].strip()
        if isinstance(spec.get(first), dict | list):
            document.setdefault(first, deepcopy(spec[first]))
        put(document, assignment)
    return document


def _has(here: Any, key: Any) -> bool:
    return key in here if isinstance(here, dict) else isinstance(here, list) and isinstance(key, int) and key < len(here)


def draft(
    *,
    preset: Mapping[str, Any] | None = None,
    file: Mapping[str, Any] | None = None,
    teacher: str | None = None,
    student: str | None = None,
    dataset: str | None = None,
    methods: Sequence[str] = (),
    measures: Sequence[str] = (),
    epochs: int | None = None,
    take: int | None = None,
    seed: int | None = None,
    name: str | None = None,
    assignments: Sequence[str] = (),
) -> Json:
    """The whole spec; what nobody named is left to the service's defaults."""
    spec = over(preset or {}, file or {})
    flags: Json = {}
    if name is not None:
        flags["name"] = name
    if teacher is not None:
        flags["teacher"] = teacher
    if student is not None:
        flags["student"] = {"architecture": student}
    if dataset is not None:
        flags["dataset"] = {"id": dataset}
    if take is not None:
        flags.setdefault("dataset", {})["take"] = {"total": take}
    if methods:
        flags["methods"] = [method_of(each) for each in methods]
    if measures:
        flags["evaluate"] = [measure_of(each) for each in measures]
    if epochs is not None:
        flags["recipe"] = {"epochs": epochs}
    if seed is not None:
        flags["seed"] = seed
    spec = over(spec, flags)
    for assignment in assignments:
        put(spec, assignment)
    return spec
