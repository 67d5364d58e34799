"""Change valid files of every format for some time, and read each in a child of its own: what hostile inputs must not do, these may not.

python -m tests.hostile.fuzz --seconds 600 --seed 1 --out fuzz.json
python -m tests.hostile.fuzz --seed 1 --step 4711          one input again, alone, with all that it told
"""

import argparse
import json
import platform
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tests.hostile.inputs import Input, faults, strays
from tests.hostile.mutate import FORMATS, mutant
from tests.hostile.reader import Outcome, Reader

_FAULTS = 50


class Fuzz:
    """Some readers that take step after step until the time is over."""

    def __init__(self, seed: int, root: Path) -> None:
        self.seed, self.root = seed, root
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        self.found: list[dict[str, Any]] = []
        self.most = {"seconds": 0.0, "bytes": 0}
        self._step = 0
        self._lock = threading.Lock()

    def run(self, until: float) -> None:
        """Take steps, in a reader of one's own, until that time of the monotonic clock."""
        with Reader() as reader:
            idle = self.read(reader, Input("idle", "dataset", b"", {"format": "npz"}))[0].peak
            while time.monotonic() < until and len(self.found) < _FAULTS:
                with self._lock:
                    step = self._step
                    self._step += 1
                item = mutant(self.seed, step)
                outcome, stray = self.read(reader, item)
                self.note(step, item, outcome, idle, stray)

    def read(self, reader: Reader, item: Input) -> tuple[Outcome, list[str]]:
        """Read one input in a folder of its own, and find what it left beside what readers leave."""
        with tempfile.TemporaryDirectory(dir=self.root) as folder:
            job = Path(folder) / "job"
            return reader.read(item.lay(job), job), strays(Path(folder))

    def note(self, step: int, item: Input, outcome: Outcome, idle: int, stray: list[str]) -> None:
        """Count an outcome, and keep the recipe of one that is at fault."""
        wrong = faults(outcome, idle) + stray
        with self._lock:
            self.counts[item.name]["fault" if wrong else "read" if outcome.code == 0 else "refused"] += 1
            self.most = {"seconds": max(self.most["seconds"], outcome.seconds), "bytes": max(self.most["bytes"], outcome.peak - idle)}
            if wrong:
                self.found.append({"seed": self.seed, "step": step, "format": item.name, "faults": [fault[:500] for fault in wrong]})
                sys.stderr.write(f"step {step}, {item.name}: {wrong}\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--step", type=int, help="this one alone")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        fuzz = Fuzz(asked.seed, Path(root))
        if asked.step is not None:
            with Reader() as reader:
                told = asdict(fuzz.read(reader, mutant(asked.seed, asked.step))[0])
            sys.stdout.write(json.dumps(told, indent=2) + "\n")
            return 0
        until = time.monotonic() + asked.seconds
        threads = [threading.Thread(target=fuzz.run, args=(until,)) for _ in range(asked.processes)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    summary = {
        "seconds": asked.seconds,
        "seed": asked.seed,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "inputs": sum(sum(each.values()) for each in fuzz.counts.values()),
        "by_format": {form: dict(sorted(fuzz.counts[form].items())) for form in FORMATS},
        "most": {"seconds": round(fuzz.most["seconds"], 2), "mebibytes_above_idle": fuzz.most["bytes"] >> 20},
        "faults": fuzz.found,
    }
    text = json.dumps(summary, indent=2) + "\n"
    sys.stdout.write(text)
    if asked.out is not None:
        asked.out.write_text(text)
    return 1 if fuzz.found else 0


if __name__ == "__main__":
    sys.exit(main())
