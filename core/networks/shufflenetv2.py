"""ShuffleNetV2 for small images: half of the channels pass a block untouched, and a shuffle mixes the halves."""

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from core.networks import Family, ImageShape


class Branch(nn.Module):
    """relu2(bn3(conv3(bn2(conv2(relu1(bn1(conv1 x))))))): 1x1, depthwise 3x3, 1x1."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(into, out, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out, out, 3, stride=stride, padding=1, groups=out, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.conv3 = nn.Conv2d(out, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        h = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        out: Tensor = self.relu2(self.bn3(self.conv3(h)))
        return out


class Shortcut(nn.Module):
    """relu(bn2(conv2(bn1(conv1 x)))): depthwise 3x3 of stride 2, 1x1."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(into, into, 3, stride=2, padding=1, groups=into, bias=False)
        self.bn1 = nn.BatchNorm2d(into)
        self.conv2 = nn.Conv2d(into, out, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.relu(self.bn2(self.conv2(self.bn1(self.conv1(x)))))
        return h


class Block(nn.Module):
    """shuffle(shortcut a, branch b): a and b are the two halves of the channels or, where the size halves, both the whole."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.split = stride == 1
        self.shortcut = nn.Identity() if self.split else Shortcut(into, out // 2)
        self.branch = Branch(into // 2 if self.split else into, out // 2, stride)
        self.shuffle = nn.ChannelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=1) if self.split else (x, x)
        out: Tensor = self.shuffle(torch.cat((self.shortcut(a), self.branch(b)), dim=1))
        return out


class ShuffleNetV2(nn.Module):
    """conv1, bn1, relu1, layer1, layer2, layer3, conv2, bn2, relu2, pool, fc; each layer halves the size, rounded up."""

    def __init__(self, *, into: int, channels: tuple[int, ...], classes: int) -> None:
        super().__init__()
        *layers, last = channels
        before = 24
        self.conv1 = nn.Conv2d(into, before, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(before)
        self.relu1 = nn.ReLU()
        for k, (out, blocks) in enumerate(zip(layers, (3, 7, 3), strict=True), start=1):
            self.add_module(f"layer{k}", nn.Sequential(Block(before, out, 2), *(Block(out, out, 1) for _ in range(blocks))))
            before = out
        self.conv2 = nn.Conv2d(before, last, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(last)
        self.relu2 = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        for module in self.children():
            x = module(x)
        return x


class Shufflenetv2(Family):
    """ShuffleNetV2 for small images: a 1x1 convolution, then three layers of 4, 8 and 4 blocks, the first of each halving the size.

    A block ends in `shuffle`; the ReLU behind a layer stands in the branch of the next block (`layer2.0.branch.relu1`) and, after
    the last, at `relu2`. Weights: `conv1`, `bn1`, `layer1.0.shortcut.conv1`, ..., `layer1.0.branch.conv1`, ..., `conv2`, `bn2`, `fc`.
    Size 0.5, 1, 1.5 and 2 at 3 input channels and 100 classes have 443,716, 1,355,528, 2,580,548 and 5,521,860 parameters; the
    second is the student of the distillation literature.
    """

    reference: ClassVar[str] = (
        "Ma, Zhang, Zheng and Sun, ShuffleNet V2, ECCV 2018; "
        "the CIFAR form of Tian, Krishnan and Isola, Contrastive Representation Distillation, ICLR 2020"
    )
    network: ClassVar[type[nn.Module]] = ShuffleNetV2
    channels: ClassVar[dict[float, tuple[int, ...]]] = {
        0.5: (48, 96, 192, 1024),
        1.0: (116, 232, 464, 1024),
        1.5: (176, 352, 704, 1024),
        2.0: (224, 488, 976, 2048),
    }
    """The channels of the three layers and of the last 1x1 convolution, by size."""

    family: Literal["shufflenetv2"] = "shufflenetv2"
    input: Annotated[ImageShape, Field(description="(channels, height, width), without the batch.")]
    size: float = Field(
        default=0.5, ge=0.5, le=2, description="0.5, 1, 1.5 or 2: how many channels, roughly as a factor of those of size 1."
    )

    @field_validator("size")
    @classmethod
    def _published(cls, value: float) -> float:
        if value not in cls.channels:
            raise ValueError(f"a size is {', '.join(map(str, cls.channels))}")
        return value

    def arguments(self) -> dict[str, Any]:
        return {"into": self.input[0], "channels": self.channels[self.size], "classes": self.classes}
