"""Initial weights of a student by name, where the network's own are not wanted."""

import math
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn
from torch.nn.modules.conv import _ConvNd


class Initialiser(BaseModel):
    """How the weights of the student's linear layers and convolutions are drawn; batch norms keep scale 1 and shift 0."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    initialiser: Literal["default", "xavier", "fan_in"] = Field(
        description=(
            "`default` is the architecture's own, as without weights. `xavier`: weights from U(-a, a) with a = sqrt(6 / (n_in + n_out)), "
            "biases 0 (Glorot & Bengio 2010). `fan_in`: weights and biases from U(-a, a) with a = 1 / sqrt(n_in), torch's own for a linear "
            "layer; the Anti-Distillation paper calls this one Xavier."
        )
    )


def initialise(network: nn.Module, chosen: Initialiser) -> None:
    """Draw the weights anew, from torch's global generator; n_in and n_out count a kernel's area with every channel."""
    if chosen.initialiser == "default":
        return
    with torch.no_grad():
        for module in network.modules():
            if not isinstance(module, (nn.Linear, _ConvNd)):
                continue
            if chosen.initialiser == "xavier":
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    module.bias.zero_()
            else:
                bound = 1 / math.sqrt(module.weight[0].numel())
                for drawn in (module.weight, module.bias):
                    if drawn is not None:
                        drawn.uniform_(-bound, bound)
