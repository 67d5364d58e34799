"""What every layer of a declared network has: a name, what it reads, and in plain numbers what it makes of that."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from torch import nn

Shape = tuple[int, ...]

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
_Height = Annotated[int, Field(title="height", ge=1, le=64)]
_Width = Annotated[int, Field(title="width", ge=1, le=64)]
_Either = Annotated[int, Field(ge=1, le=64)]


def _both(value: object) -> object:
    return (value, value) if isinstance(value, int) else value


Sizes = Annotated[tuple[_Height, _Width], BeforeValidator(_both, json_schema_input_type=_Either | tuple[_Height, _Width])]
"""(height, width), or one number for both."""

_AtHeight = Annotated[int, Field(title="height", ge=0, le=64)]
_AtWidth = Annotated[int, Field(title="width", ge=0, le=64)]
_AtEither = Annotated[int, Field(ge=0, le=64)]
Margins = Annotated[tuple[_AtHeight, _AtWidth], BeforeValidator(_both, json_schema_input_type=_AtEither | tuple[_AtHeight, _AtWidth])]
"""(above and below, left and right), or one number for both."""


class Misfit(Exception):
    """A layer that cannot take what it is given: why, what to try, and the field of the node at fault, as the parts of a JSON pointer."""

    def __init__(self, reason: str, hint: str = "", *, at: tuple[str | int, ...] = ("from", 0)) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
        self.at = at


class Call(NamedTuple):
    """A module's constructor and its arguments, which are plain literals: an export writes them down as Python."""

    make: type[nn.Module]
    arguments: tuple[Any, ...] = ()
    options: Mapping[str, Any] = {}

    def build(self) -> nn.Module:
        """The module, with its initial weights."""
        return self.make(*self.arguments, **self.options)

    def source(self) -> str:
        """The expression that builds it."""
        package = "nn." if self.make.__module__.startswith("torch.") else ""
        arguments = [*map(repr, self.arguments), *(f"{name}={value!r}" for name, value in self.options.items())]
        return f"{package}{self.make.__name__}({', '.join(arguments)})"


class Layer(BaseModel):
    """One node of a declared network. Shapes are without the batch; `given` are those of its sources, in their order.

    A subclass adds `op`, a Literal, and its own fields: each bounded. Its `shape` raises `Misfit` for what it cannot take.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)

    joins: ClassVar[bool] = False
    """Whether it reads two nodes or more; others read one."""

    op: str
    name: Name = Field(description="The name of the module: its weights' keys begin with it, and it is a tap.")
    sources: tuple[Name, ...] = Field(
        (),
        alias="from",
        max_length=64,
        description='The nodes it reads, all of them before it; "input" is the input of the network. Left out: the node before.',
    )

    def shape(self, given: Sequence[Shape]) -> Shape:
        """The shape it gives. Raises `Misfit`."""
        raise NotImplementedError

    def call(self, given: Sequence[Shape]) -> Call:
        """The module it is."""
        raise NotImplementedError

    def parameters(self, given: Sequence[Shape]) -> int:
        """How many values learn."""
        return 0

    def flops(self, given: Sequence[Shape]) -> int:
        """Of one forward pass of one input, as torch.utils.flop_counter counts: products of matrices and convolutions, two each."""
        return 0

    def values(self, given: Sequence[Shape]) -> int:
        """How many values one forward pass of one input makes here."""
        return prod(self.shape(given))


def maps(given: Sequence[Shape]) -> tuple[int, int, int]:
    """The shape of the one source, which must be maps. Raises `Misfit`."""
    (shape,) = given
    if len(shape) != 3:
        raise Misfit("it takes maps (channels, height, width)")
    return shape[0], shape[1], shape[2]


def tokens(given: Sequence[Shape]) -> tuple[int, int]:
    """The shape of the one source, which must be tokens. Raises `Misfit`."""
    (shape,) = given
    if len(shape) != 2:
        raise Misfit("it takes tokens (count, features)", "a node of the op tokens makes them of maps")
    return shape[0], shape[1]


def changed(**options: tuple[Any, Any]) -> dict[str, Any]:
    """The options that differ from PyTorch's default: each is (value, default); equal numbers for height and width are written as one."""
    return {name: plain(value) for name, (value, default) in options.items() if value != default}


def plain(value: Any) -> Any:
    """One number for a pair of equal ones; anything else as it is."""
    return value[0] if isinstance(value, tuple) and len(value) == 2 and value[0] == value[1] else value
