"""A child that starts in a fifth of a second and really trains something small, with every kind of state that a resume can forget.

Weights, momentum, a moving average, a data order that is a function of (seed, epoch). What it leaves is a function of the seed and the
number of steps, to the byte: `reference` computes it without an interruption.
"""

import faulthandler
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from core.errors import EXIT_YIELDED
from core.events import Checkpointed, Evaluated, Event, Exported, File, Phase, Result, Step, encode
from core.shim import die_with_parent

State = dict[str, NDArray[np.float64]]

STEPS = 60
EVERY = 10
PAUSE = 0.005
ROWS, BATCH, FEATURES = 64, 16, 8
KEPT = ["weights", "momentum", "average"]
"""What a checkpoint holds beside the number of steps."""

_STOP = threading.Event()


class Training:
    """A least-squares fit by stochastic gradient descent with momentum, and the moving average of its weights."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        draws = np.random.Generator(np.random.Philox(key=seed))
        self._x = draws.normal(size=(ROWS, FEATURES))
        self._y = (self._x * draws.normal(size=FEATURES)).sum(1) + 0.1 * draws.normal(size=ROWS)
        self.done = 0
        self.state: State = {name: np.zeros(FEATURES) for name in KEPT}

    def step(self) -> float:
        """One optimiser step; its loss before it."""
        epoch, i = divmod(self.done, ROWS // BATCH)
        order = np.random.Generator(np.random.Philox(key=(self.seed << 64) + epoch + 1)).permutation(ROWS)
        rows = order[i * BATCH : (i + 1) * BATCH]
        x, error = self._x[rows], (self._x[rows] * self.state["weights"]).sum(1) - self._y[rows]
        self.state["momentum"] = 0.9 * self.state["momentum"] + 2 / BATCH * (x * error[:, None]).sum(0)
        self.state["weights"] = self.state["weights"] - 0.02 * self.state["momentum"]
        self.state["average"] = 0.95 * self.state["average"] + 0.05 * self.state["weights"]
        self.done += 1
        return float((error * error).mean())

    def freeze(self, ballast: int = 0) -> bytes:
        """A checkpoint; `ballast` bytes more make it long."""
        kept = {name: self.state[name] for name in KEPT}
        return bytes(save({**kept, "done": np.array(self.done), "ballast": np.zeros(ballast, np.uint8)}))

    def thaw(self, blob: bytes) -> None:
        """Go on from a checkpoint. What it lacks begins anew."""
        found = load(blob)
        self.done = int(found["done"])
        self.state.update({name: found[name] for name in KEPT if name in found})

    def student(self) -> bytes:
        """What is given away."""
        return bytes(save({name: self.state[name] for name in ("average", "weights")}))


@cache
def reference(seed: int, steps: int) -> str:
    """The digest of the student of a training that nothing interrupts."""
    training = Training(seed)
    for _ in range(steps):
        training.step()
    return sha256(training.student()).hexdigest()


def tell(event: Event) -> None:
    """One event."""
    os.write(1, (encode(event) + "\n").encode())


def written(name: str, content: bytes) -> File:
    """A file of this child's making; a child is started in its job folder."""
    path = Path(name)
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(content)
    return File(path.name, name, sha256(content).hexdigest(), len(content))


def run(asked: Mapping[str, Any]) -> None:
    """`asked` is {"seed", "steps", "every", "pause", "ballast", "die_every", "export"}, each of them optional."""
    steps, every, die_every = asked.get("steps", STEPS), asked.get("every", EVERY), asked.get("die_every", 0)
    training = Training(asked.get("seed", 0))
    resumed = Path("in/checkpoint.safetensors")
    if resumed.exists():
        training.thaw(resumed.read_bytes())
    first, loss = training.done, 0.0

    def keep() -> None:
        file = written(f"checkpoint/{training.done:08}.safetensors", training.freeze(asked.get("ballast", 0)))
        tell(Checkpointed(0, training.done, training.done, file.path, file.sha256, file.bytes))

    tell(Phase("train", 0, steps))
    while training.done < steps:
        if _STOP.is_set():
            keep()
            sys.exit(EXIT_YIELDED)
        loss = training.step()
        tell(Step("train", 0, training.done // (ROWS // BATCH), training.done, training.done, steps, {"loss": loss}, 10.0))
        if training.done % every == 0:
            keep()
            if die_every and training.done - first >= die_every and training.done < steps:
                time.sleep(0.5)  # the checkpoint is told, and kept by now
                os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(asked.get("pause", PAUSE))
    tell(Evaluated(0, 1, training.done, "test", {"loss": loss}, {}))
    if asked.get("export", True):
        tell(Exported("safetensors", [written("out/export/model.safetensors", training.student())], {"max_abs_diff": 0.0}))
    tell(Result({"done": training.done, "resumed": first}))


def _listen() -> None:
    rest = b""
    while data := os.read(0, 4096):
        *lines, rest = (rest + data).split(b"\n")
        if any(json.loads(line)["command"] == "stop" for line in lines):
            _STOP.set()


def main() -> None:
    """What `python -m core run DIR` is to a real child."""
    faulthandler.enable()
    if "--parent" in sys.argv:
        die_with_parent(int(sys.argv[sys.argv.index("--parent") + 1]))
    task = json.loads(Path("job.json").read_text())
    signal.signal(signal.SIGTERM, lambda *_: _STOP.set())
    threading.Thread(target=_listen, daemon=True).start()
    run(task.get("toy") or {"seed": task["spec"]["seed"]})


if __name__ == "__main__":
    main()
