"""What a job may ask to be measured at its end, beyond accuracy and agreement: a measure has a name and parameters, and changes nothing."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Epsilons = Annotated[tuple[Annotated[float, Field(ge=0, le=1e6)], ...], Field(min_length=1, max_length=64)]
"""The strengths at which something is measured: the axis of a curve."""


class Measure(BaseModel):
    """One thing to measure, with its parameters.

    Measuring is a generator that yields None once a batch, so that nobody waits long for a sign of life, and returns what was found. The
    network is read in eval mode and each module gets its own mode back; weights, their `grad` and their `requires_grad` stay as they are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
