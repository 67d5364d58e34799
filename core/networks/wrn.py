"""The wide residual network of depth 6n+4: pre-activation blocks, `widen` times as many channels."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator
from torch import Tensor, nn

from core.networks import Family, ImageShape


class Block(nn.Module):
    """h = relu1(bn1 x); conv2(dropout(relu2(bn2(conv1 h)))) + shortcut.

    Where the shape changes the shortcut is a 1x1 convolution of h; elsewhere it is x itself.
    """

    def __init__(self, into: int, out: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.same = into == out and stride == 1
        self.bn1 = nn.BatchNorm2d(into)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(into, out, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.relu2 = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.shortcut = nn.Identity() if self.same else nn.Conv2d(into, out, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu1(self.bn1(x))
        bypass = self.shortcut(x if self.same else h)
        h = self.conv2(self.dropout(self.relu2(self.bn2(self.conv1(h)))))
        total: Tensor = h + bypass
        return total


class WideResNet(nn.Module):
    """conv1, block1, block2, block3, bn, relu, pool, fc; block2 and block3 halve the size."""

    def __init__(self, *, into: int, depth: int, widen: int, dropout: float, stem_stride: int, classes: int) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        widths = (16, 16 * widen, 32 * widen, 64 * widen)
        self.conv1 = nn.Conv2d(into, widths[0], 3, stride=stem_stride, padding=1, bias=False)
        for k in range(1, 4):
            first = Block(widths[k - 1], widths[k], 1 if k == 1 else 2, dropout)
            rest = (Block(widths[k], widths[k], 1, dropout) for _ in range(blocks - 1))
            self.add_module(f"block{k}", nn.Sequential(first, *rest))
        self.bn = nn.BatchNorm2d(widths[3])
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(widths[3], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        for module in self.children():
            x = module(x)
        return x


class Wrn(Family):
    """A wide residual network WRN-depth-widen: three groups of (depth - 4) / 6 pre-activation blocks.

    The groups `block1`, `block2`, `block3` give raw sums; the batch norm and ReLU that follow stand at the head of the next
    group (`block2.0.bn1`, `block2.0.relu1`) and, after the last, at `bn` and `relu`. Weights: `conv1`, `block1.0.bn1`,
    `block1.0.conv1`, `block1.0.bn2`, `block1.0.conv2`, `block1.0.shortcut` where the shape changes, ..., `bn`, `fc`. WRN-10-1, 16-2,
    10-4, 16-4 and 22-4 at 3 input channels and 10 classes have 77,850, 691,674, 1,198,810, 2,748,890 and 4,298,970 parameters.
    """

    reference: ClassVar[str] = "Zagoruyko and Komodakis, Wide Residual Networks, BMVC 2016"
    network: ClassVar[type[nn.Module]] = WideResNet

    family: Literal["wrn"] = "wrn"
    input: Annotated[ImageShape, Field(description="(channels, height, width), without the batch.")]
    depth: int = Field(default=16, ge=10, le=1204, description="6n + 4: 10, 16, 22, 28, 40, ...")
    widen: int = Field(default=1, ge=1, le=32, description="Multiplies the channels of the groups: 16, 32 and 64 times this.")
    dropout: float = Field(
        default=0.0, ge=0, le=0.9, description="The share of activations that is dropped between the two convolutions of a block."
    )
    stem_stride: int = Field(
        default=1, ge=1, le=4, description="The stride of the first convolution; 2 makes every map a quarter as large."
    )

    @field_validator("depth")
    @classmethod
    def _six_n_plus_four(cls, value: int) -> int:
        if (value - 4) % 6:
            raise ValueError(f"a depth is 6n + 4, as {value - (value - 4) % 6} or {value - (value - 4) % 6 + 6}")
        return value

    def arguments(self) -> dict[str, Any]:
        return {
            "into": self.input[0],
            "depth": self.depth,
            "widen": self.widen,
            "dropout": self.dropout,
            "stem_stride": self.stem_stride,
            "classes": self.classes,
        }
