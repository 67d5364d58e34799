"""Counter-based draws: every random number is a function of a key, a row and a place, so no random state is ever stored.

The hash is the finaliser of SplitMix64 (Steele, Lea & Flood 2014) on int64 tensors, whose products wrap. Uniforms take 24 bits and one
exact multiplication, integers a multiply-shift: no rounding anywhere, so a CPU and a GPU draw the same bits.
"""

import hashlib

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST = 0xBF58476D1CE4E5B9 - (1 << 64)
_SECOND = 0x94D049BB133111EB - (1 << 64)


def key_of(*parts: int | str) -> Tensor:
    """A key, 0-d int64 on the CPU, that names a purpose: `key_of(seed, "order", epoch)`. Different parts give unrelated keys."""
    named = repr(tuple(part if isinstance(part, str) else int(part) for part in parts))
    digest = hashlib.blake2b(named.encode(), digest_size=8).digest()
    return torch.tensor(int.from_bytes(digest, "little", signed=True), dtype=torch.int64, device="cpu")


def uniforms(key: Tensor, index: Tensor, n: int = 1, stream: int = 0) -> Tensor:
    """(B, n) float32 in [0, 1), multiples of 2^-24: one row of draws for each int64 of `index` (B,), on its device."""
    return ((_bits(key, index, n, stream) >> 40) & 0xFFFFFF).to(torch.float32) * 2.0**-24


def integers(key: Tensor, index: Tensor, high: int, n: int = 1, stream: int = 0) -> Tensor:
    """(B, n) int64 in [0, high), high at most 2^31; the bias of multiply-shift is below high / 2^32."""
    if not 0 < high <= 1 << 31:
        raise ValueError(f"high must be between 1 and 2^31, not {high}")
    return (((_bits(key, index, n, stream) >> 32) & 0xFFFFFFFF) * high) >> 32


def rival(logits: Tensor, uniform: Tensor) -> Tensor:
    """(B,) classes for logits (B, C), not the top ones, drawn by uniforms (B,) with p_k = q_k / (1 - max q), where q is the softmax."""
    # On the CPU: running sums have no deterministic form on a GPU, and a small table of logits is all they are of.
    rest = logits.double().scatter(1, logits.argmax(1, keepdim=True), -torch.inf).softmax(1).cpu().cumsum(1)
    return (rest <= uniform.double().cpu()[:, None] * rest[:, -1:]).sum(1).to(logits.device)


def signs(key: Tensor, index: Tensor, n: int, stream: int = 0) -> Tensor:
    """(B, n) float32, each -1 or 1: one bit of 64 for each."""
    words = _bits(key, index, -(-n // 64), stream)
    places = torch.arange(64, device=index.device)
    return ((words[:, :, None] >> places) & 1).flatten(1)[:, :n].to(torch.float32) * 2 - 1


def order(seed: int, epoch: int, n: int) -> Tensor:
    """A permutation of range(n), int64 on the CPU: the rows of one epoch, sorted by a draw of (seed, epoch, row)."""
    draws = _bits(key_of(seed, "order", epoch), torch.arange(n, device="cpu"), 1, 0)[:, 0]
    return torch.argsort(draws, stable=True)


def _bits(key: Tensor, index: Tensor, n: int, stream: int) -> Tensor:
    """(B, n) int64 of 64 mixed bits."""
    rows = _mix(_mix(key.to(index.device) + _wrapped((stream + 1) * _GOLDEN)) + index * _GOLDEN)
    places = torch.arange(1, n + 1, device=index.device) * _GOLDEN
    return _mix(rows[:, None] + places)


def _wrapped(value: int) -> int:
    """The integer modulo 2^64, as int64 reads it."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)


def _mix(z: Tensor) -> Tensor:
    z = (z ^ ((z >> 30) & ((1 << 34) - 1))) * _FIRST
    z = (z ^ ((z >> 27) & ((1 << 37) - 1))) * _SECOND
    return z ^ ((z >> 31) & ((1 << 33) - 1))
