"""The CIFAR ResNet of depth 6n+2, with the parameter-free shortcut (option A)."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from core.networks import Family, ImageShape


class Shortcut(nn.Module):
    """Option A: every second pixel, and zero channels on both sides, so a block that shrinks adds no weights."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.before = (out - into) // 2
        self.after = out - into - self.before

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


class Block(nn.Module):
    """relu2(bn2(conv2(relu1(bn1(conv1 x)))) + shortcut x)."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(into, out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.shortcut = nn.Identity() if stride == 1 else Shortcut(into, out)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu1(self.bn1(self.conv1(x)))
        out: Tensor = self.relu2(self.bn2(self.conv2(h)) + self.shortcut(x))
        return out


class ResNet(nn.Module):
    """conv1, bn1, relu, layer1, layer2, layer3, pool, fc; the size halves and the channels double from layer to layer."""

    def __init__(self, *, into: int, depth: int, width: int, classes: int) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        stem = 16 * width
        self.conv1 = nn.Conv2d(into, stem, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU()
        self.layer1 = nn.Sequential(*(Block(stem, stem, 1) for _ in range(blocks)))
        self.layer2 = nn.Sequential(*(Block(stem if k == 0 else 2 * stem, 2 * stem, 2 if k == 0 else 1) for k in range(blocks)))
        self.layer3 = nn.Sequential(*(Block(2 * stem if k == 0 else 4 * stem, 4 * stem, 2 if k == 0 else 1) for k in range(blocks)))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(4 * stem, classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.fc(self.flatten(self.pool(x)))
        return logits


class Resnet(Family):
    """The CIFAR ResNet: three layers of (depth - 2) / 6 blocks with 16, 32 and 64 channels, each times `width`.

    Weights: `conv1`, `bn1`, `layer1.0.conv1`, `layer1.0.bn1`, `layer1.0.conv2`, `layer1.0.bn2`, ..., `fc`. Depth 8, 14, 20 and
    26 at 3 input channels and 10 classes have 75,290, 172,506, 269,722 and 366,938 parameters.
    """

    reference: ClassVar[str] = "He, Zhang, Ren and Sun, Deep Residual Learning for Image Recognition, CVPR 2016, section 4.2"
    network: ClassVar[type[nn.Module]] = ResNet

    family: Literal["resnet"] = "resnet"
    input: Annotated[ImageShape, Field(description="(channels, height, width), without the batch.")]
    depth: int = Field(default=20, ge=8, le=1202, description="6n + 2: 8, 14, 20, 26, 32, 44, 56, 110, ...")
    width: int = Field(default=1, ge=1, le=16, description="Multiplies every channel count, the stem's too.")

    @field_validator("depth")
    @classmethod
    def _six_n_plus_two(cls, value: int) -> int:
        if (value - 2) % 6:
            raise ValueError(f"a depth is 6n + 2, as {value - (value - 2) % 6} or {value - (value - 2) % 6 + 6}")
        return value

    def arguments(self) -> dict[str, Any]:
        return {"into": self.input[0], "depth": self.depth, "width": self.width, "classes": self.classes}
