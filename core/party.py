"""A network that takes part in a job: what a task says of it, and the network itself with its weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.anatomy import Anatomy, measure
from core.artifacts import load_into
from core.frozen import FAMILY, Frozen, measure_frozen
from core.networks import Family, parse
from core.taps import Tap, Tapped


@dataclass(frozen=True, slots=True)
class Party:
    """A network that takes part: its family, None for a frozen one, and its measurements."""

    family: Family | None
    anatomy: Anatomy
    frozen: Frozen | None = None

    @classmethod
    def of(cls, asset: Mapping[str, Any], where: str, weights: Path | None = None) -> "Party":
        """The party that a task describes; a frozen one is opened from its `weights`. Raises Refused under `where`."""
        architecture, normalization = asset["architecture"], asset.get("normalization")
        if isinstance(architecture, Mapping) and architecture.get("family") == FAMILY and weights is not None:
            model = Frozen(weights, architecture.get("input"), where=where or "/upload")
            return cls(None, measure_frozen(model, normalization), model)
        family = parse(architecture, where=f"{where}/architecture")
        return cls(family, measure(family, normalization=normalization))

    @property
    def normalization(self) -> dict[str, tuple[float, ...]] | None:
        """{"mean", "std"} in data units, or None."""
        if self.anatomy.mean is None or self.anatomy.std is None:
            return None
        return {"mean": self.anatomy.mean, "std": self.anatomy.std}

    @property
    def source(self) -> Family | Frozen:
        """What the network is built of, or the frozen network itself."""
        found = self.family or self.frozen
        assert found is not None, "a party has a family or is frozen"
        return found

    def tapped(self, weights: Path | None, taps: tuple[Tap, ...], *, where: str, outputs: Sequence[int] | None = None) -> Tapped:
        """The network with the weights of a file, or with fresh ones from torch's generator."""
        if self.family is None:
            assert self.frozen is not None, "a party has a family or is frozen"
            return Tapped(self.frozen, mean=self.anatomy.mean, std=self.anatomy.std, outputs=outputs)
        network = self.family.build()
        if weights is not None:
            load_into(network, weights, where=where)
        return Tapped(network, taps=taps, mean=self.anatomy.mean, std=self.anatomy.std, outputs=outputs)


def teacher_in(folder: Path) -> Path:
    """Where a job folder's teacher lies: weights of a family, or a whole model."""
    whole = folder / "in" / "teacher.onnx"
    return whole if whole.exists() else folder / "in" / "teacher.safetensors"
