"""A network of timm by its name, where timm is installed; its weights are fresh, for nothing is downloaded."""

import difflib
import importlib
import inspect
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from core.errors import Refused
from core.networks import Family, ImageShape

KEPT: list[torch.library.Library] = []
"""What is declared to torch lives as long as this."""


def mend_torchvision() -> None:
    """Declare two operators of torchvision's compiled part where it does not load, as one made for CUDA beside a torch without it.

    timm imports torchvision, which would fail for them, and no network calls them.
    """
    spec = find_spec("torchvision")
    if KEPT or "torchvision" in sys.modules or spec is None:
        return
    for place in spec.submodule_search_locations or ():
        for compiled in Path(place).glob("_C*"):
            try:
                torch.ops.load_library(compiled)
            except OSError:
                continue
            return
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    KEPT.append(library)


_SOURCE = '''"""The student's network. It needs timm: pip install timm torchvision."""

import sys
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

KEPT: list[torch.library.Library] = []


{mend}

def build() -> nn.Module:
    mend_torchvision()
    import timm

    timm.layers.set_fused_attn(False)  # as it was trained
    return timm.create_model({arguments})
'''


class Timm(Family):
    """A network of PyTorch Image Models by its name, such as resnet18 or vit_tiny_patch16_224, with fresh weights.

    The names are those of `timm.list_models()`. Weights' keys are timm's own, so a checkpoint that was trained with timm fits as it is. An
    export needs timm too. Which sizes of input a network takes is timm's to say: many are made for 224x224.
    """

    reference: ClassVar[str] = "Wightman, PyTorch Image Models, 2019, doi:10.5281/zenodo.4414861"
    network: ClassVar[type[nn.Module]] = nn.Module
    needs: ClassVar[tuple[str, ...]] = ("timm", "torchvision")

    family: Literal["timm"] = "timm"
    input: Annotated[ImageShape, Field(description="(channels, height, width), without the batch.")]
    name: str = Field(pattern=r"^[A-Za-z0-9_]{1,100}$", description="A name of timm.list_models(), without the tag of any weights.")
    drop_rate: float = Field(0.0, ge=0, le=0.95, description="The share of activations that is dropped before the last layer.")
    drop_path_rate: float = Field(0.0, ge=0, le=0.95, description="The share of residual branches that is dropped, where it has such.")

    def arguments(self) -> dict[str, Any]:
        """Those of timm.create_model besides the name. `Refused` as `library` is, and for a name that timm has not."""
        timm = library()
        names = timm.list_models()
        if self.name not in names:
            near = difflib.get_close_matches(self.name, names, n=3)
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "timm.list_models() lists them"
            raise Refused("/architecture/name", f"timm {timm.__version__} has no network {self.name!r}", hint=hint)
        rates = {name: rate for name in ("drop_rate", "drop_path_rate") if (rate := getattr(self, name))}
        fixed = timm.models.get_pretrained_cfg(self.name).fixed_input_size
        size = {"img_size": self.input[1:]} if fixed else {}
        return {"pretrained": False, "in_chans": self.input[0], "num_classes": self.classes, **size, **rates}

    def build(self) -> nn.Module:
        """A fresh network. `Refused` with timm's own reason where it does not make one."""
        arguments = self.arguments()
        try:
            network: nn.Module = library().create_model(self.name, **arguments)
        except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as wrong:
            raise Refused("/architecture", f"timm does not make {self.name!r} with {_told(arguments)}: {wrong}") from wrong
        return network

    def source(self) -> str:
        arguments = f"{self.name!r}, {_told(self.arguments())}"
        return _SOURCE.format(mend=inspect.getsource(mend_torchvision), arguments=arguments)


def library() -> ModuleType:
    """timm. `Refused` where it is not installed; whatever imports it comes here first."""
    if find_spec("timm") is None or find_spec("torchvision") is None:
        raise Refused(
            "/architecture/family", "timm is not installed here", hint="where the workers run: pip install 'retort-service[timm]'"
        )
    mend_torchvision()
    timm: ModuleType = importlib.import_module("timm")
    timm.layers.set_fused_attn(False)  # the fused kernels cannot be differentiated twice, as `jacobian` and its like do
    return timm


def _told(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())
