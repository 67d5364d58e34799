"""The main job of Retort, from a teacher that was trained elsewhere to a student whose accuracy anyone can check.

`make demo`, or `python docs/demo/demo.py [FOLDER]`: everything it makes lies in .demo/ beside the README (or in FOLDER), in a folder
named by the time.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from docs.serving import Failed, played, running, serving, succeeded
from retort import Asset, Client, Job
from retort.watch import watch

HERE = Path(__file__).resolve().parent
STUDENT = {"family": "convnet", "channels": [8, 16], "input": [1, 8, 8], "classes": 10}
TAKE, EPOCHS = 200, 60


class Demo:
    """One run, in one folder."""

    def __init__(self, folder: Path, console: Console) -> None:
        self.folder = folder
        self.service = folder / "service"
        self.console = console
        self.started = time.monotonic()
        folder.mkdir(parents=True)

    def run(self) -> None:
        """To the downloaded student; Failed where it does not do what the service said."""
        self.step("training a teacher outside Retort: plain PyTorch, docs/demo/teacher.py")
        self.train_teacher()
        self.step("starting the service: retort up")
        with serving(self.service) as (url, key), Client(url, key=key) as client:
            self.step("sending the teacher, a student's architecture and the data")
            spec = self.spec(client)
            self.step(f"distilling on {TAKE} images, and training the same without the teacher")
            job = client.jobs.create(spec)
            job, baseline = watch([job, job.baseline()], self.console)
            succeeded(job, baseline)
            self.step("fetching the student")
            files = job.download(self.folder / "student")
        self.table(job, baseline)
        names = ", ".join(sorted(path.name for path in files))
        self.console.print(f"the student's files: {self.folder / 'student'}\n  {names}")
        self.step("checking the student's weights with nothing but torch")
        self.check(next(path for path in files if path.name == "model.safetensors"), job)

    def step(self, text: str) -> None:
        """Say what comes now."""
        self.console.print(f"[{time.monotonic() - self.started:5.1f} s] {text}")

    def train_teacher(self) -> None:
        """Leaves teacher.safetensors, teacher.json and digits.npz."""
        log = self.folder / "teacher.log"
        with (
            log.open("wb") as sink,
            running([sys.executable, str(HERE / "teacher.py"), str(self.folder)], stdout=sink, log=sink) as process,
        ):
            if process.wait() != 0:
                raise Failed(f"training the teacher failed:\n{log.read_text()[-2000:]}\nlog: {log}")

    def spec(self, client: Client) -> dict[str, Any]:
        """The job: what was uploaded, the method, the recipe."""
        teacher = client.upload(self.folder / "teacher.safetensors", purpose="teacher")
        data = client.upload(self.folder / "digits.npz", purpose="dataset")
        described = json.loads((self.folder / "teacher.json").read_text())
        made: list[Asset] = [
            client.teachers.create("digits teacher", upload=teacher.id, **described),
            client.architectures.create("digits student", architecture=STUDENT, normalization=described["normalization"]),
            client.datasets.create("digits", upload=data.id, format="npz", classes=10),
        ]
        ready = [client.wait_ready(asset, timeout=120) for asset in made]
        for asset in ready:
            self.console.print(f"          {asset.kind} {asset.id} is {asset.status}")
        return {
            "name": "distilled",
            "teacher": ready[0].id,
            "student": {"architecture": ready[1].id},
            "dataset": {"id": ready[2].id, "take": {"total": TAKE}, "validation": 0},
            "methods": [{"name": "kd", "temperature": 4.0, "weight": 0.9}],
            "recipe": {"epochs": EPOCHS, "batch_size": 32, "optimizer": {"name": "sgd", "lr": 0.05}, "task_weight": 0.1},
        }

    def table(self, job: Job, baseline: Job) -> None:
        """Teacher, baseline and student side by side, as the service measured them on the same test images."""
        result = job.result
        teacher = {"test": result["teacher"], "parameters": result["teacher_parameters"], "bytes": result["teacher_bytes"]}
        n = result["test"]["n"]
        table = Table(title=f"accuracy on {n} test images that no network was trained on")
        for column in ("", "accuracy", "n", "parameters", "bytes", "trained on"):
            table.add_column(column, justify="left" if column in ("", "trained on") else "right", no_wrap=True)
        rows = (
            ("teacher", teacher, "1197 images"),
            ("baseline", baseline.result, f"{TAKE} images"),
            ("distilled", result, f"{TAKE} images + teacher"),
        )
        for name, each, data in rows:
            table.add_row(name, f"{each['test']['accuracy']:.2%}", str(n), f"{each['parameters']:,}", f"{each['bytes']:,}", data)
        gain = 100 * (result["test"]["accuracy"] - baseline.result["test"]["accuracy"])
        self.console.print()
        self.console.print(table)
        self.console.print(f"the teacher was worth {gain:+.2f} points (one seed)\n")

    def check(self, weights: Path, job: Job) -> None:
        """Failed unless plain torch counts as many right answers as the service reported."""
        right, n = count_right(weights, self.folder / "digits.npz", json.loads((self.folder / "teacher.json").read_text())["normalization"])
        reported = job.result["test"]
        self.console.print(f"plain torch finds {right} of {n} right: {right / n:.4f}")
        told = f"the service reported {reported['accuracy']:.4f} on {reported['n']}"
        if n != reported["n"] or right != round(reported["accuracy"] * reported["n"]):
            raise Failed(f"{told}: NOT the same number")
        self.console.print(f"{told}: the same number")


def count_right(weights: Path, data: Path, normalization: dict[str, list[float]]) -> tuple[int, int]:
    """Right answers on the test images, and how many images: a plain module, the file's weights, nothing of Retort."""
    import numpy as np
    import torch
    from safetensors.torch import load_file
    from torch import nn

    class Block(nn.Sequential):
        def __init__(self, into: int, out: int) -> None:
            super().__init__()
            self.conv = nn.Conv2d(into, out, 3, padding=1, bias=False)
            self.bn = nn.BatchNorm2d(out)
            self.relu = nn.ReLU()

    class Student(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block1, self.block2, self.fc = Block(1, 8), Block(8, 16), nn.Linear(16, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            maps = self.block2(nn.functional.max_pool2d(self.block1(x), 2))
            logits: torch.Tensor = self.fc(maps.mean(dim=(2, 3)))
            return logits

    student = Student()
    student.load_state_dict(load_file(weights))
    student.eval()
    arrays = np.load(data)
    x = torch.from_numpy(arrays["x_test"]).float().unsqueeze(1) / 255
    y = torch.from_numpy(arrays["y_test"])
    with torch.no_grad():
        logits = student((x - normalization["mean"][0]) / normalization["std"][0])
    return int((logits.argmax(1) == y).sum()), len(y)


def main() -> int:
    """0 where the student does what the service said."""
    home = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parents[1] / ".demo"
    return played(home, lambda folder, console: Demo(folder, console).run())


if __name__ == "__main__":
    sys.exit(main())
