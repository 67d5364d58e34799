"""The modules of a declared network that PyTorch itself has not. They use torch alone: an export carries their source along."""

import torch
from torch import Tensor, nn


class Add(nn.Module):
    """The sum of tensors of one shape."""

    def forward(self, first: Tensor, *others: Tensor) -> Tensor:
        for other in others:
            first = first + other
        return first


class Multiply(nn.Module):
    """The product, entry by entry; a map of one pixel counts for every pixel."""

    def forward(self, first: Tensor, *others: Tensor) -> Tensor:
        for other in others:
            first = first * other
        return first


class Concat(nn.Module):
    """Tensors (B, C, ...) one behind the other along axis 1."""

    def forward(self, *parts: Tensor) -> Tensor:
        return torch.cat(parts, dim=1)


class Tokens(nn.Module):
    """Maps (B, C, H, W) as H W tokens: (B, H W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2)


class ClassToken(nn.Module):
    """A token that learns, before the others: (B, T, D) becomes (B, T + 1, D)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, features))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.token.expand(x.shape[0], -1, -1), x), dim=1)


class Position(nn.Module):
    """x + position: (B, T, D), where position (1, T, D) learns."""

    def __init__(self, count: int, features: int) -> None:
        super().__init__()
        self.position = nn.Parameter(0.02 * torch.randn(1, count, features))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.position


class Attention(nn.Module):
    """Self-attention of tokens (B, T, D) with several heads: out(softmax(q k^T / sqrt(D / heads)) v)."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(features, 3 * features)
        self.out = nn.Linear(features, features)

    def forward(self, x: Tensor) -> Tensor:
        # Written out, and no fused kernel: those cannot be differentiated twice.
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(q @ k.transpose(2, 3) * q.shape[3] ** -0.5, dim=3)
        mixed: Tensor = self.out((weights @ v).transpose(1, 2).flatten(2))
        return mixed


class TakeToken(nn.Module):
    """One token of (B, T, D): (B, D)."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.index]


class MeanToken(nn.Module):
    """The mean of the tokens of (B, T, D): (B, D)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=1)
