"""The zoo: one file a family, found by its place in this folder.

A family is a frozen, bounded description of networks (`Family`) together with the plain PyTorch modules that it builds. The
modules of a family file use `torch`, `nn`, `F` and `Tensor` and nothing else, because an export carries their source along
(`Family.source`): whoever downloads a student needs PyTorch, not Retort.
"""

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from core.errors import Refusals, Refused
from core.layers import LAYERS
from core.layers import Shape as Shape

_MOST_FAULTS = 20
_IN_JSON = {
    "missing": "it is missing",
    "tuple_type": "a list is wanted",
    "model_attributes_type": "an object is wanted",
    "model_type": "an object is wanted",
    "dict_type": "an object is wanted",
}

Extent = Annotated[int, Field(ge=1, le=4096)]
"""One extent of an input: channels, height, width or features."""
ImageShape = tuple[
    Annotated[Extent, Field(title="channels")], Annotated[Extent, Field(title="height")], Annotated[Extent, Field(title="width")]
]
"""(channels, height, width), without the batch."""
LARGEST = 1_000_000_000
"""Networks with more parameters, and terms that bring more, are refused: four gigabytes of weights, three times that to train them."""

HEAD = '''"""The student's network, in plain PyTorch."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F'''


class Family(BaseModel):
    """A family of networks for classification: what `build` needs, as values that can be sent, stored and refused.

    A subclass adds `family`, a Literal with its file's name, and its hyper-parameters: each bounded, each with a default.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reference: ClassVar[str]
    """The paper, or where the shape comes from."""
    network: ClassVar[type[nn.Module]]
    """What `build` makes; forward takes x (B, *input) and gives logits (B, classes)."""
    needs: ClassVar[tuple[str, ...]] = ()
    """The packages that make the network, beside torch: what they refuse, the person asked for."""

    family: str
    input: Annotated[tuple[Extent, ...], Field(min_length=1, max_length=3, description="The shape of one input, without the batch.")]
    classes: int = Field(ge=2, le=100_000, description="How many classes the network tells apart: the number of its outputs.")

    def check(self, where: str) -> None:
        """`Refused` under `where` for what no field can tell by itself; builds nothing."""

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of `network`: plain literals, because an export writes them down as Python."""
        raise NotImplementedError

    def build(self) -> nn.Module:
        """A fresh network with its initial weights, drawn from torch's global generator; on the meta device it costs no memory."""
        return self.network(**self.arguments())

    def source(self) -> str:
        """This network as a Python file of its own, with a function `build()`; needs nothing but torch."""
        module = inspect.getmodule(type(self))
        classes = [thing for thing in vars(module).values() if inspect.isclass(thing) and issubclass(thing, nn.Module)]
        own = [inspect.getsource(thing).rstrip() for thing in classes if inspect.getmodule(thing) is module]
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.arguments().items())
        build = f"def build() -> nn.Module:\n    return {self.network.__name__}({arguments})\n"
        return "\n\n\n".join([HEAD, *own, build])


@cache
def families() -> Mapping[str, type[Family]]:
    """Every family of this folder by its name, sorted."""
    found: dict[str, type[Family]] = {}
    for place in sorted(pkgutil.iter_modules(__path__), key=lambda place: place.name):
        module = importlib.import_module(f"{__name__}.{place.name}")
        for thing in vars(module).values():
            if inspect.isclass(thing) and issubclass(thing, Family) and thing.__module__ == module.__name__:
                found[place.name] = thing
    return found


def parse(architecture: object, *, where: str = "/architecture") -> Family:
    """The family that a flat description names: {"family": "resnet", "depth": 20, "input": [3, 32, 32], "classes": 10}.

    `Refused` under `where` for an unknown family, unknown fields and values out of their bounds, all at once; names the nearest known ones.
    """
    if not isinstance(architecture, Mapping):
        raise Refused(where, "an architecture is an object with a family and its fields", hint=f"the families are {', '.join(families())}")
    name = architecture.get("family")
    known = families()
    if not isinstance(name, str) or name not in known:
        reason = "the architecture does not say its family" if name is None else f"there is no family {name!r}"
        raise Refused(f"{where}/family", reason, hint=_nearest(str(name), list(known), "the families are"))
    try:
        family = known[name].model_validate(dict(architecture))
    except ValidationError as wrong:
        errors = wrong.errors(include_url=False, include_input=False)
        # A list may be too short only because its items were refused, and those are told.
        errors = [each for each in errors if each["type"] != "too_short" or not _is_refused_within(errors, each["loc"])]
        # Of an object's faults a field that it does not have comes first: another that is missing is perhaps what was meant.
        first = errors[0]["loc"][:-1]
        told = Refusals()
        for error in sorted(errors, key=lambda each: (each["loc"][:-1] != first, each["type"] != "extra_forbidden"))[:_MOST_FAULTS]:
            told.add(_refusal(error, architecture, known[name], where))
        told.check()
    family.check(where)
    return family


def _is_refused_within(errors: Sequence[Any], loc: tuple[str | int, ...]) -> bool:
    return any(len(each["loc"]) > len(loc) and each["loc"][: len(loc)] == loc for each in errors)


def _refusal(error: Any, architecture: Mapping[str, Any], family: type[Family], where: str) -> Refused:
    """One thing that pydantic found, at the place in what the person sent, with what could stand there."""
    place, model = _placed(error["loc"], architecture, family)
    path = "/".join([where, *map(str, place)])
    fields = {field.alias or name: field.description or "" for name, field in model.model_fields.items() if name not in ("family", "op")}
    kind = model.model_fields["op" if "op" in model.model_fields else "family"]
    whose = str(architecture["family"]) if model is family else " or ".join(map(str, get_args(kind.annotation)))
    if error["type"] == "extra_forbidden":
        return Refused(path, f"{whose} has no field {place[-1]!r}", hint=_nearest(str(place[-1]), list(fields), f"{whose} takes"))
    if error["type"] == "union_tag_invalid":
        tag = error["ctx"]["tag"]
        return Refused(f"{path}/op", f"there is no op {tag!r}", hint=_nearest(tag, list(LAYERS), "the ops are"))
    if error["type"] == "union_tag_not_found":
        return Refused(f"{path}/op", "the node does not say its op", hint=f"the ops are {', '.join(LAYERS)}")
    field = next((str(part) for part in reversed(place) if part in fields), "")
    # Where pydantic names Python's words for what a body is made of.
    reason = _IN_JSON.get(error["type"]) or error["msg"].removeprefix("Value error, ")
    if error["type"] == "too_short":
        reason = f"a list of at least {error['ctx']['min_length']} is wanted, here are {error['ctx']['actual_length']}"
    return Refused(path, reason, hint=fields.get(field, ""))


def _placed(loc: tuple[str | int, ...], sent: object, model: type[BaseModel]) -> tuple[list[str | int], type[BaseModel]]:
    """Where in what was sent pydantic means, which also names the branches of unions that it took, and the model that describes it."""
    place: list[str | int] = []
    for k, part in enumerate(loc):
        if isinstance(sent, Mapping) and (part in sent or k == len(loc) - 1):
            place.append(part)
            sent = sent.get(part)
        elif isinstance(sent, list | tuple) and isinstance(part, int):
            place.append(part)
            sent = sent[part] if part < len(sent) else None
        elif part in LAYERS:
            model = LAYERS[str(part)]
    return place, model


def _nearest(word: str, words: list[str], otherwise: str) -> str:
    near = difflib.get_close_matches(word, words, n=1)
    return f"did you mean {near[0]!r}?" if near else f"{otherwise} {', '.join(words)}"
