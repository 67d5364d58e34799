"""VGG with batch norm in the form of the distillation literature: five blocks, global average pooling, one linear layer."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from core.networks import Family, ImageShape


class Layer(nn.Module):
    """conv 3x3, batch norm, ReLU; the size stays."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        # The batch norm takes the bias away again; it is there because the published weights and counts have it.
        self.conv = nn.Conv2d(into, out, 3, padding=1)
        self.bn = nn.BatchNorm2d(out)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.relu(self.bn(self.conv(x)))
        return h


class VGG(nn.Module):
    """block1, pool1, block2, pool2, block3, pool3, block4, block5, pool, fc. A pooling halves the size, rounded up: 1x1 stays 1x1."""

    def __init__(self, *, into: int, layers: tuple[int, ...], classes: int) -> None:
        super().__init__()
        widths = (into, 64, 128, 256, 512, 512)
        for k, count in enumerate(layers, start=1):
            first = Layer(widths[k - 1], widths[k])
            self.add_module(f"block{k}", nn.Sequential(first, *(Layer(widths[k], widths[k]) for _ in range(count - 1))))
            if k <= 3:
                self.add_module(f"pool{k}", nn.MaxPool2d(2, ceil_mode=True))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(widths[-1], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        for module in self.children():
            x = module(x)
        return x


class Vgg(Family):
    """VGG with batch norm for small images: five blocks with 64, 128, 256, 512 and 512 channels.

    A depth counts the convolutions and the three linear layers of the original, of which one is left here. The size halves
    after each of the first three blocks, so a 32x32 image ends in maps of 4x4. Weights: `block1.0.conv`, `block1.0.bn`, ...,
    `fc`. Depth 8, 11, 13, 16 and 19 at 3 input channels and 100 classes have 3,965,028, 9,277,284, 9,462,180, 14,774,436 and
    20,086,692 parameters.
    """

    reference: ClassVar[str] = (
        "Simonyan and Zisserman, Very Deep Convolutional Networks, ICLR 2015; "
        "the CIFAR form of Tian, Krishnan and Isola, Contrastive Representation Distillation, ICLR 2020"
    )
    network: ClassVar[type[nn.Module]] = VGG

    family: Literal["vgg"] = "vgg"
    input: Annotated[ImageShape, Field(description="(channels, height, width), without the batch.")]
    depth: Literal[8, 11, 13, 16, 19] = Field(default=8, description="How many layers the original with three linear layers would have.")

    def arguments(self) -> dict[str, Any]:
        layers = {8: (1, 1, 1, 1, 1), 11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
        return {"into": self.input[0], "layers": layers[self.depth], "classes": self.classes}
