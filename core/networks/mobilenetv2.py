"""MobileNetV2 for small images: inverted residuals with linear bottlenecks."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from core.networks import Family, ImageShape


class Block(nn.Module):
    """bn3(conv3(relu2(bn2(conv2(relu1(bn1(conv1 x))))))) + x: 1x1 to `wide` channels, depthwise 3x3, 1x1 without an activation.

    Where the shape changes there is no sum.
    """

    def __init__(self, into: int, wide: int, out: int, stride: int) -> None:
        super().__init__()
        self.same = into == out and stride == 1
        self.conv1 = nn.Conv2d(into, wide, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(wide)
        self.relu1 = nn.ReLU6()
        self.conv2 = nn.Conv2d(wide, wide, 3, stride=stride, padding=1, groups=wide, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)
        self.relu2 = nn.ReLU6()
        self.conv3 = nn.Conv2d(wide, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu1(self.bn1(self.conv1(x)))
        h = self.relu2(self.bn2(self.conv2(h)))
        out: Tensor = self.bn3(self.conv3(h))
        return out + x if self.same else out


class MobileNetV2(nn.Module):
    """conv1, bn1, relu1, layer1, ..., layer7, conv2, bn2, relu2, pool, fc; layer3, layer4 and layer6 halve the size."""

    def __init__(self, *, into: int, width: float, stem_stride: int, classes: int) -> None:
        super().__init__()
        before, last = int(32 * width), int(1280 * max(width, 1))
        self.conv1 = nn.Conv2d(into, before, 3, stride=stem_stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(before)
        self.relu1 = nn.ReLU6()
        # Expansion, channels, blocks and the first block's stride. The first layer expands by one, and keeps the 1x1 convolution.
        rows = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
        for k, (expansion, channels, blocks, stride) in enumerate(rows, start=1):
            out = int(channels * width)
            first = Block(before, expansion * before, out, stride)
            self.add_module(f"layer{k}", nn.Sequential(first, *(Block(out, expansion * out, out, 1) for _ in range(blocks - 1))))
            before = out
        self.conv2 = nn.Conv2d(before, last, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(last)
        self.relu2 = nn.ReLU6()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(last, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        for module in self.children():
            x = module(x)
        return x


class Mobilenetv2(Family):
    """MobileNetV2 for small images: seven layers of inverted residuals, 17 blocks in all.

    The layers give raw sums; the ReLU6 that follows stands behind the first convolution of the next block
    (`layer3.0.relu1`) and, after the last, at `relu2`. Weights: `conv1`, `bn1`, `layer1.0.conv1`, `layer1.0.bn1`, ..., `conv2`,
    `bn2`, `fc`. Width 0.5 and 1 at 3 input channels and 100 classes have 812,836 and 2,353,060 parameters; the first is the
    student of the distillation literature, where the stem has stride 2.
    """

    reference: ClassVar[str] = (
        "Sandler, Howard, Zhu, Zhmoginov and Chen, MobileNetV2, CVPR 2018; "
        "the CIFAR form of Tian, Krishnan and Isola, Contrastive Representation Distillation, ICLR 2020"
    )
    network: ClassVar[type[nn.Module]] = MobileNetV2

    family: Literal["mobilenetv2"] = "mobilenetv2"
    input: Annotated[ImageShape, Field(description="(channels, height, width), without the batch.")]
    width: float = Field(
        default=0.5,
        ge=0.1,
        le=4,
        description="Multiplies every channel count, rounded down; the last 1x1 convolution never has fewer than 1280.",
    )
    stem_stride: int = Field(
        default=2, ge=1, le=2, description="The stride of the first convolution; 1 keeps the size of the smallest images."
    )

    def arguments(self) -> dict[str, Any]:
        return {"into": self.input[0], "width": self.width, "stem_stride": self.stem_stride, "classes": self.classes}
