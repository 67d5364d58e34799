"""A multilayer perceptron: linear layers with a ReLU between them, for flat inputs or for images laid flat."""

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator
from torch import Tensor, nn

from core.networks import Extent, Family


class MLP(nn.Module):
    """linear1, relu1, linear2, relu2, ..., fc, and perhaps a ReLU."""

    def __init__(self, *, features: int, hidden: tuple[int, ...], classes: int, rectified: bool) -> None:
        super().__init__()
        widths = (features, *hidden)
        self.flatten = nn.Flatten()
        for k in range(1, len(widths)):
            self.add_module(f"linear{k}", nn.Linear(widths[k - 1], widths[k]))
            self.add_module(f"relu{k}", nn.ReLU())
        self.fc = nn.Linear(widths[-1], classes)
        if rectified:
            self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        for module in self.children():
            x = module(x)
        return x


class Mlp(Family):
    """A multilayer perceptron. An image is laid flat, channel by channel, row by row.

    Weights: `linear1`, `linear2`, ... for the hidden layers and `fc` for the outputs; `relu1`, `relu2`, ... lie between. One
    hidden layer of 128 between 784 inputs and 10 classes has 101,770 parameters.
    """

    reference: ClassVar[str] = "Rosenblatt, Principles of Neurodynamics, 1962; with the ReLU of Nair and Hinton, ICML 2010"
    network: ClassVar[type[nn.Module]] = MLP

    family: Literal["mlp"] = "mlp"
    input: Annotated[
        tuple[Extent, ...],
        Field(min_length=1, max_length=3, description="(features,) or (channels, height, width), without the batch."),
    ]
    hidden: Annotated[
        tuple[Annotated[int, Field(ge=1, le=16_384)], ...],
        Field(max_length=32, description="The width of each hidden layer; none makes a linear classifier."),
    ] = (128,)
    rectified: bool = Field(
        False,
        description=(
            "A ReLU behind the outputs, as the code published with Petrushina et al. (2022) has it: an output that is below 0 everywhere "
            "learns no more. For that paper's table alone."
        ),
    )

    @field_validator("input")
    @classmethod
    def _flat_or_image(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(value) == 2:
            raise ValueError("an input is (features,) or (channels, height, width)")
        return value

    def arguments(self) -> dict[str, Any]:
        return {"features": math.prod(self.input), "hidden": self.hidden, "classes": self.classes, "rectified": self.rectified}
