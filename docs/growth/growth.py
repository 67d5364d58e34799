"""Growth with Retort: what does a small network that knows five classes give to a larger one that is to learn ten?

`python docs/growth/growth.py --data fashion-mnist.tar.xz` reads an archive of <name>/{train,test}/<class>/<image>; without `--data` it
plays with scikit-learn's digits. There is one dataset: the teacher, a job without methods, learns the first half of its classes, by name,
and the student all of them. A perceptron is widened, a wide residual network is widened, and a residual network is deepened; each student
is trained alone, from the teacher's weights by `net2net`, and after a transfer fit of `anti_distillation` on the teacher's classes, for as
many epochs in all. What is made lies in .demo/ beside the README.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from docs.serving import played, serving, succeeded
from docs.transfer.transfer import HERE as BESIDE
from docs.transfer.transfer import Images, digits, normalization, unpacked
from retort import Asset, Client, Job
from retort.watch import watch

GROWTHS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a perceptron, widened": ({"family": "mlp", "hidden": [64, 32]}, {"family": "mlp", "hidden": [128, 64]}),
    "a wide residual network, widened": ({"family": "wrn", "depth": 10, "widen": 2}, {"family": "wrn", "depth": 10, "widen": 4}),
    "a residual network, deepened": ({"family": "resnet", "depth": 8}, {"family": "resnet", "depth": 14}),
}
"""Teachers and students. They normalise alike: the student's first layer is the teacher's."""


def arms(epochs: int) -> dict[str, list[dict[str, Any]]]:
    """What the teacher gives, by name; `epochs` are those of the transfer fit."""
    return {
        "alone": [],
        "net2net": [{"name": "net2net"}],
        "anti_distillation": [{"name": "anti_distillation", "epochs": epochs, "trace_weight": 0.0}],
    }


class Example:
    """One run, in one folder."""

    def __init__(self, folder: Path, console: Console, asked: argparse.Namespace) -> None:
        self.folder, self.console, self.asked = folder, console, asked
        folder.mkdir(parents=True)

    def run(self) -> None:
        """One dataset; for each growth a teacher, the students, and a line of the table."""
        images = unpacked(self.asked.data, self.folder) if self.asked.data else digits()
        images.save(self.folder / "images.npz")
        simple = list(images.names[: len(images.names) // 2])
        self.console.print(f"the teachers' classes: {', '.join(simple)}; the students': {', '.join(images.names)}")
        with serving(self.folder / "service") as (url, key), Client(url, key=key) as client:
            upload = client.upload(self.folder / "images.npz", purpose="dataset")
            made = client.datasets.create("images", upload=upload.id, format="npz", class_names=list(images.names))
            data = client.wait_ready(made, timeout=300)
            found = {growth: self.grown(client, data, images, simple, growth) for growth in GROWTHS}
        self.table(found)

    def grown(self, client: Client, data: Asset, images: Images, simple: list[str], growth: str) -> dict[str, Job]:
        """The teacher of a growth, and its students by arm, all ended."""
        whole = {"input": images.input, "classes": len(images.names)}
        small, large = (
            client.wait_ready(client.architectures.create(growth, architecture={**own, **whole}, normalization=normalization(images)))
            for own in GROWTHS[growth]
        )
        first = {"id": data.id, "classes": simple, "validation": 0}
        (job,) = watch([client.jobs.create(self.spec(f"{growth}: teacher", small, first))], self.console)
        succeeded(job)
        weights = next(path for path in job.download(self.folder / job.id) if path.name == "model.safetensors")
        described = {"architecture": {**GROWTHS[growth][0], **whole}, "normalization": normalization(images)}
        sent = client.upload(weights, purpose="teacher")
        teacher = client.wait_ready(client.teachers.create(growth, upload=sent.id, labels=list(images.names), **described))
        all_of_it = {"id": data.id, "take": {"total": self.asked.images}, "validation": 0}
        half = max(1, self.asked.epochs // 2)
        jobs = {}
        for arm, methods in arms(half).items():
            left = self.asked.epochs - sum(method.get("epochs", 0) for method in methods)
            named: dict[str, Any] = {"teacher": teacher.id} if methods else {}
            if arm == "anti_distillation":
                named["teacher_dataset"] = first
            spec = {**self.spec(f"{growth}: {arm}", large, all_of_it, epochs=left), **named, "methods": methods}
            jobs[arm] = client.jobs.create(spec)
        ended = dict(zip(jobs, watch(list(jobs.values()), self.console), strict=True))
        succeeded(*ended.values())
        return ended

    def spec(self, name: str, network: Asset, data: dict[str, Any], *, epochs: int | None = None) -> dict[str, Any]:
        """A job without a teacher."""
        recipe = {"epochs": epochs or self.asked.epochs, "batch_size": 32, "optimizer": {"name": "adamw", "lr": 2e-3}}
        return {"name": name, "student": {"architecture": network.id}, "dataset": data, "methods": [], "recipe": recipe}

    def table(self, found: dict[str, dict[str, Job]]) -> None:
        """Every student."""
        self.console.print(f"\naccuracy in per cent, from {self.asked.images} images of all classes and {self.asked.epochs} epochs in all")
        table = Table()
        for column in ("growth", *arms(1)):
            table.add_column(column, justify="left" if column == "growth" else "right", no_wrap=True)
        for growth, jobs in found.items():
            table.add_row(growth, *(f"{100 * job.result['test']['accuracy']:.2f}" for job in jobs.values()))
        self.console.print(table)
        self.console.print("one seed: it shows that it works, and says nothing of the size of a gain")


def arguments() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(description="A network that knows five classes grows into a larger one for ten.")
    parser.add_argument("--data", type=Path, help="a tar archive of <name>/{train,test}/<class>/<image>; digits when left out")
    parser.add_argument("--images", type=int, default=200, help="images of all classes that a student learns from (200)")
    parser.add_argument("--epochs", type=int, default=20, help="the epochs of every training, a transfer fit counted (20)")
    parser.add_argument("--folder", type=Path, default=BESIDE.parents[1] / ".demo", help="where everything is put (.demo)")
    return parser.parse_args()


def main() -> int:
    """0 where the table was printed."""
    asked = arguments()
    return played(asked.folder, lambda folder, console: Example(folder, console, asked).run())


if __name__ == "__main__":
    sys.exit(main())
