"""The CIFAR ResNet of depth 6n+2, with the parameter-free shortcut (option A) or the projecting one (option B)."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from core.networks import Family, ImageShape


class Pad(nn.Module):
    """Option A: every stride-th pixel, and zero channels on both sides, so a block that changes the shape adds no weights."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = (out - into) // 2
        self.after = out - into - self.before

    def forward(self, x: Tensor) -> Tensor:
        # A pool of one pixel, and no slice, because its gradient comes back in the memory format of x.
        return F.pad(F.avg_pool2d(x, 1, self.stride), (0, 0, 0, 0, self.before, self.after))


class Project(nn.Module):
    """Option B: a 1x1 convolution of this stride, and a batch norm."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(into, out, 1, stride=stride, bias=False)
        self.bn = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.bn(self.conv(x))
        return h


class Block(nn.Module):
    """relu2(bn2(conv2(relu1(bn1(conv1 x)))) + shortcut x), where the shortcut is x itself unless the shape changes."""

    def __init__(self, into: int, out: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(into, out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        change = Project if shortcut == "project" else Pad
        self.shortcut = nn.Identity() if into == out and stride == 1 else change(into, out, stride)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu1(self.bn1(self.conv1(x)))
        out: Tensor = self.relu2(self.bn2(self.conv2(h)) + self.shortcut(x))
        return out


class ResNet(nn.Module):
    """conv1, bn1, relu, layer1, layer2, layer3, pool, fc; the size halves and the channels double from layer to layer."""

    def __init__(self, *, into: int, depth: int, width: int, shortcut: str, stem: int, stem_stride: int, classes: int) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        widths = (stem, 16 * width, 32 * width, 64 * width)
        self.conv1 = nn.Conv2d(into, stem, 3, stride=stem_stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU()
        for k in range(1, 4):
            first = Block(widths[k - 1], widths[k], 1 if k == 1 else 2, shortcut)
            rest = (Block(widths[k], widths[k], 1, shortcut) for _ in range(blocks - 1))
            self.add_module(f"layer{k}", nn.Sequential(first, *rest))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(widths[3], classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        for module in self.children():
            x = module(x)
        return x


class Resnet(Family):
    """The CIFAR ResNet: three layers of (depth - 2) / 6 blocks with 16, 32 and 64 channels, each times `width`.

    Weights: `conv1`, `bn1`, `layer1.0.conv1`, `layer1.0.bn1`, `layer1.0.conv2`, `layer1.0.bn2`, ..., `fc`, and with projections
    `layer2.0.shortcut.conv`, `layer2.0.shortcut.bn`. Depth 8, 14, 20 and 26 at 3 input channels and 10 classes have 75,290,
    172,506, 269,722 and 366,938 parameters.

    The distillation literature on CIFAR-100 projects: depth 20 and 56 have 278,324 and 861,620 parameters there. Its resnet8x4
    and resnet32x4 are depth 8 and 32 with `width` 4, `stem` 32 and `shortcut` "project", 1,233,540 and 7,433,860 parameters.
    """

    reference: ClassVar[str] = (
        "He, Zhang, Ren and Sun, Deep Residual Learning for Image Recognition, CVPR 2016, section 4.2; "
        "the x4 widths of Tian, Krishnan and Isola, Contrastive Representation Distillation, ICLR 2020"
    )
    network: ClassVar[type[nn.Module]] = ResNet

    family: Literal["resnet"] = "resnet"
    input: Annotated[ImageShape, Field(description="(channels, height, width), without the batch.")]
    depth: int = Field(default=20, ge=8, le=1202, description="6n + 2: 8, 14, 20, 26, 32, 44, 56, 110, ...")
    width: int = Field(default=1, ge=1, le=16, description="Multiplies the channels of the layers: 16, 32 and 64 times this.")
    shortcut: Literal["pad", "project"] = Field(
        default="pad",
        description="Where the shape changes: zero channels without weights (option A), or a 1x1 convolution with a batch norm.",
    )
    stem: int | None = Field(
        default=None, ge=1, le=2048, description="The channels of the first convolution; none means those of the first layer."
    )
    stem_stride: int = Field(
        default=1, ge=1, le=4, description="The stride of the first convolution; 2 makes every map a quarter as large."
    )

    @field_validator("depth")
    @classmethod
    def _six_n_plus_two(cls, value: int) -> int:
        if (value - 2) % 6:
            raise ValueError(f"a depth is 6n + 2, as {value - (value - 2) % 6} or {value - (value - 2) % 6 + 6}")
        return value

    @field_validator("stem")
    @classmethod
    def _pad_only_adds(cls, value: int | None, info: ValidationInfo) -> int | None:
        layer = 16 * info.data.get("width", 1)
        if value is not None and value > layer and info.data.get("shortcut") == "pad":
            raise ValueError(f"a stem of {value} is wider than the first layer's {layer}, and padding cannot take channels away: project")
        return value

    def arguments(self) -> dict[str, Any]:
        return {
            "into": self.input[0],
            "depth": self.depth,
            "width": self.width,
            "shortcut": self.shortcut,
            "stem": 16 * self.width if self.stem is None else self.stem,
            "stem_stride": self.stem_stride,
            "classes": self.classes,
        }
