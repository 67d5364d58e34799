"""The zoo: one file a family, found by its place in this folder.

A family is a frozen, bounded description of networks (`Family`) together with the plain PyTorch modules that it builds. The
modules of a family file use `torch`, `nn`, `F` and `Tensor` and nothing else, because an export carries their source along
(`Family.source`): whoever downloads a student needs PyTorch, not Retort.
"""

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from core.errors import Refused

Shape = tuple[int, ...]
Extent = Annotated[int, Field(ge=1, le=4096)]
"""One extent of an input: channels, height, width or features."""
ImageShape = tuple[Extent, Extent, Extent]
"""(channels, height, width), without the batch."""

_HEAD = '''"""The student's network, in plain PyTorch."""

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

    family: str
    input: Annotated[tuple[Extent, ...], Field(min_length=1, max_length=3, description="The shape of one input, without the batch.")]
    classes: int = Field(ge=2, le=100_000, description="How many classes the network tells apart: the number of its outputs.")

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
        return "\n\n\n".join([_HEAD, *own, build])


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

    `Refused` under `where` for an unknown family, an unknown field or a value out of its bounds; names the nearest known one.
    """
    if not isinstance(architecture, Mapping):
        raise Refused(where, "an architecture is an object with a family and its fields", hint=f"the families are {', '.join(families())}")
    name = architecture.get("family")
    known = families()
    if not isinstance(name, str) or name not in known:
        reason = "the architecture does not say its family" if name is None else f"there is no family {name!r}"
        raise Refused(f"{where}/family", reason, hint=_nearest(str(name), list(known), "the families are"))
    try:
        return known[name].model_validate(dict(architecture))
    except ValidationError as wrong:
        error = wrong.errors(include_url=False, include_context=False, include_input=False)[0]
        path = "/".join(str(part) for part in error["loc"])
        fields = [field for field in known[name].model_fields if field != "family"]
        if error["type"] == "extra_forbidden":
            hint = _nearest(str(error["loc"][0]), fields, f"{name} takes")
            raise Refused(f"{where}/{path}", f"{name} has no field {error['loc'][0]!r}", hint=hint) from None
        raise Refused(
            f"{where}/{path}".rstrip("/"),
            error["msg"].removeprefix("Value error, "),
            hint=_described(known[name], str(error["loc"][0]) if path else ""),
        ) from None


def _nearest(word: str, words: list[str], otherwise: str) -> str:
    near = difflib.get_close_matches(word, words, n=1)
    return f"did you mean {near[0]!r}?" if near else f"{otherwise} {', '.join(words)}"


def _described(family: type[Family], name: str) -> str:
    field = family.model_fields.get(name)
    return (field.description or "") if field else ""
