"""A plain convolutional network: conv, batch norm, ReLU, with a pooling between the blocks."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from core.networks import Family, ImageShape


class Block(nn.Module):
    """conv 3x3, batch norm, ReLU; the size stays."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(into, out, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(out)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.relu(self.bn(self.conv(x)))
        return h


class ConvNet(nn.Module):
    """block1, pool1, block2, pool2, ..., blockN, pool, fc. A pooling halves the size, rounded up, so that 1x1 stays 1x1."""

    def __init__(self, *, into: int, channels: tuple[int, ...], classes: int) -> None:
        super().__init__()
        widths = (into, *channels)
        for k in range(1, len(widths)):
            if k > 1:
                self.add_module(f"pool{k - 1}", nn.MaxPool2d(2, ceil_mode=True))
            self.add_module(f"block{k}", Block(widths[k - 1], widths[k]))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        for module in self.children():
            x = module(x)
        return x


class Convnet(Family):
    """A plain convolutional network: one block of conv 3x3, batch norm and ReLU for each entry of `channels`.

    The size halves from block to block. Weights: `block1.conv`, `block1.bn`, ..., `fc`. The default channels at 3 input channels
    and 10 classes have 24,346 parameters.
    """

    reference: ClassVar[str] = "Simonyan and Zisserman, Very Deep Convolutional Networks, ICLR 2015 (the small 3x3 kernels)"
    network: ClassVar[type[nn.Module]] = ConvNet

    family: Literal["convnet"] = "convnet"
    input: Annotated[ImageShape, Field(description="(channels, height, width), without the batch.")]
    channels: Annotated[
        tuple[Annotated[int, Field(ge=1, le=2048)], ...],
        Field(min_length=1, max_length=16, description="The channels of each block."),
    ] = (16, 32, 64)

    def arguments(self) -> dict[str, Any]:
        return {"into": self.input[0], "channels": self.channels, "classes": self.classes}
