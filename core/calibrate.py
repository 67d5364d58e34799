"""Measure what a machine does in a second, in a few seconds: from that and a job's plan its time can be foreseen.

Every rate is that of training: a forward and a backward pass of one layer on its own, so that what a real step pays beside its arithmetic
is in it. Small layers run far below a machine's best, so convolutions and matrix products are measured at several sizes.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from core.runtime import Runtime

_SECONDS = 0.25
_CONVOLUTIONS = ((64, 64, 64, 16), (16, 1, 64, 32), (64, 1, 32, 16), (256, 1, 16, 8))
"""(channels, groups, batch, side of the maps): one of depth 1, then from small to large."""
_PRODUCTS = ((64, 128), (512, 128), (2048, 128))
"""(features, batch)."""
_BATCHES = (8, 64, 1024)
"""Of maps of 64 KiB each: half a MiB, 4 MiB, 64 MiB."""
_CHAIN = (2, 18)


class Rate(NamedTuple):
    """What is done in a second at one size."""

    size: int
    rate: float


class Calibration(BaseModel):
    """What one device does, for a job of so many threads.

    `conv` and `matmul` are operations a second by the number of products that are summed for each value given, in fp32, and under bfloat16
    autocast as `conv_bf16` and `matmul_bf16` on a GPU; `elements` are the bytes a second that a batch norm and a ReLU read and write, by
    the bytes of the values: large ones fit no cache, and are new memory each time; `copy_rate` those of a plain copy;
    `operation` the seconds that each layer of a step costs however small it is, `step` those of a step beside. `start` the seconds of a
    processor from the start of a process to its first step, `held` the private bytes that it has then, on a GPU those of the GPU. `memory`
    the device's bytes.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    device: Literal["cpu", "cuda"]
    hardware: str
    threads: int
    torch: str
    conv: tuple[Rate, ...]
    matmul: tuple[Rate, ...]
    conv_bf16: tuple[Rate, ...] | None = None
    matmul_bf16: tuple[Rate, ...] | None = None
    elements: tuple[Rate, ...]
    copy_rate: float
    operation: float
    step: float
    start: float
    held: int
    memory: int


def calibrate(runtime: Runtime) -> Calibration:
    """Measure the device of a runtime with its threads, in about five seconds."""
    runtime.pin()
    device = torch.device(runtime.device)
    start = time.process_time()
    _pass(nn.Conv2d(8, 8, 3, device=device), torch.randn(2, 8, 8, 8, device=device), half=False)()
    held, memory = _memory(device)  # before anything large was here
    layers = {half: _rates(device, half) for half in ((False, True) if device.type == "cuda" else (False,))}
    few, many = (_seconds(_chain(depth, device), device) for depth in _CHAIN)
    operation = max(0.0, (many - few) / (2 * (_CHAIN[1] - _CHAIN[0])))  # a linear layer and a ReLU each
    elements = tuple(_norm(device, batch) for batch in _BATCHES)
    rate = _copy(device)
    return Calibration(
        device=runtime.device,
        hardware=runtime.hardware(),
        threads=runtime.threads,
        torch=torch.__version__,
        conv=layers[False][0],
        matmul=layers[False][1],
        conv_bf16=layers[True][0] if True in layers else None,
        matmul_bf16=layers[True][1] if True in layers else None,
        elements=elements,
        copy_rate=rate,
        operation=operation,
        step=max(0.0, few - 2 * _CHAIN[0] * operation),
        start=start,
        held=held,
        memory=memory,
    )


def _rates(device: torch.device, half: bool) -> tuple[tuple[Rate, ...], tuple[Rate, ...]]:
    conv = []
    for channels, groups, batch, side in _CONVOLUTIONS:
        layer = nn.Conv2d(channels, channels, 3, padding=1, groups=groups, bias=False, device=device)
        x = torch.randn(batch, channels, side, side, device=device).to(memory_format=torch.channels_last)
        reduction = 9 * channels // groups
        conv.append(Rate(reduction, 3 * 2 * reduction * x.numel() / _seconds(_pass(layer, x, half), device)))
    matmul = []
    for features, batch in _PRODUCTS:
        x = torch.randn(batch, features, device=device)
        seconds = _seconds(_pass(nn.Linear(features, features, bias=False, device=device), x, half), device)
        matmul.append(Rate(features, 3 * 2 * features * x.numel() / seconds))
    return tuple(conv), tuple(matmul)


def _pass(layer: nn.Module, x: Tensor, half: bool) -> Callable[[], None]:
    """A forward and a backward pass, to the weights and to the input."""
    x.requires_grad_()

    def run() -> None:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=half):
            y = layer(x)
        y.backward(torch.ones_like(y))
        x.grad = None

    return run


def _chain(depth: int, device: torch.device) -> Callable[[], None]:
    """A whole step of a network that is nothing but overhead."""
    layers = [layer for _ in range(depth) for layer in (nn.Linear(8, 8), nn.ReLU())]
    network = nn.Sequential(*layers).to(device)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.0, momentum=0.9)
    x = torch.randn(2, 8, device=device)

    def run() -> None:
        optimiser.zero_grad()
        network(x).sum().backward()
        optimiser.step()

    return run


def _norm(device: torch.device, batch: int) -> Rate:
    """Bytes a second of a batch norm and a ReLU in training."""
    layer = nn.Sequential(nn.BatchNorm2d(16), nn.ReLU()).to(device)
    x = torch.randn(batch, 16, 32, 32, device=device).to(memory_format=torch.channels_last)
    # Each of the two reads and writes its values forward, and twice as many backward.
    return Rate(x.nbytes, 3 * 2 * 2 * x.nbytes / _seconds(_pass(layer, x, half=False), device))


def _copy(device: torch.device) -> float:
    source = torch.ones(1 << 24, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _seconds(lambda: target.copy_(source), device)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """The time of a piece of work when nobody disturbs it: the shortest run, but for the first. On one thread of a CPU it is what the
    processor gave, which other work beside does not lengthen much.
    """
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    times: list[float] = []
    end = time.perf_counter() + _SECONDS
    while len(times) < 4 or time.perf_counter() < end:
        began = clock()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(clock() - began)
    return min(times[1:])


def _memory(device: torch.device) -> tuple[int, int]:
    """What this process holds of its own, and all that the device has, in bytes."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return total - free - torch.cuda.memory_reserved(device), total
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    held = next((int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:")), 0)
    return held, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
