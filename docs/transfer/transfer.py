"""Transfer learning with Retort: what does a teacher of five classes give to a student of five others, from a few images of them?

`python docs/transfer/transfer.py --data fashion-mnist.tar.xz` reads an archive of <name>/{train,test}/<class>/<image>; without `--data`
it plays with scikit-learn's digits. The first half of the classes, by name, trains the teacher: a job of its own, without methods. The
other half trains the student, from `--images` images: alone, after a transfer fit of `ab`, and beside the term of `fitnet`, each for as
many epochs in all. That is repeated for `--seeds` seeds, which draw images and initial weights. What is made lies in .demo/ beside the
README.
"""

import argparse
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.images import unpack
from benchmarks.summary import Difference, difference
from docs.serving import Failed, played, serving, succeeded
from retort import ApiError, Asset, Client, Job
from retort.watch import watch

HERE = Path(__file__).resolve().parent
TEACHER_IMAGES = 10_000
"""At most: more would only take longer."""


def methods(epochs: int) -> dict[str, list[dict[str, Any]]]:
    """What is tried, by name: neither looks at logits. Rates and weights were chosen on training images, not on those of the test."""
    return {
        "with ab": [{"name": "ab", "epochs": max(1, epochs // 3), "lr": 0.01}],
        "with fitnet": [{"name": "fitnet", "joint": True, "weight": {"linear": [20, 0], "until": 0.5}}],
    }


@dataclass(frozen=True)
class Images:
    """Pictures (N, H, W) or (N, H, W, 3) uint8 with labels (N,) int64, in two splits, and the names of the classes in the labels' order."""

    train: tuple[Any, Any]
    test: tuple[Any, Any]
    names: tuple[str, ...]

    def only(self, labels: range) -> "Images":
        """The images of some of the classes, which become the classes 0, 1, 2, ..."""

        def kept(x: Any, y: Any) -> tuple[Any, Any]:
            there = (y >= labels.start) & (y < labels.stop)
            return x[there], y[there] - labels.start

        return Images(kept(*self.train), kept(*self.test), self.names[labels.start : labels.stop])

    @property
    def input(self) -> list[int]:
        """(channels, height, width)."""
        x = self.train[0]
        return [3 if x.ndim == 4 else 1, *x.shape[1:3]]

    def save(self, path: Path) -> None:
        """As Retort takes them."""
        np.savez(path, x_train=self.train[0], y_train=self.train[1], x_test=self.test[0], y_test=self.test[1])


def digits() -> Images:
    """1797 handwritten digits of 8 x 8 pixels; a third is for the test."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    found = load_digits()
    x = (found.images * (255 / 16)).round().astype(np.uint8)
    x_train, x_test, y_train, y_test = train_test_split(x, found.target, test_size=600, random_state=0, stratify=found.target)
    return Images((x_train, y_train), (x_test, y_test), tuple(str(digit) for digit in range(10)))


def unpacked(archive: Path, folder: Path) -> Images:
    """The images of a tar archive, classes sorted by name."""
    try:
        names = unpack(archive, folder / "images.npz")
    except (OSError, ValueError) as wrong:
        raise Failed(str(wrong)) from wrong
    if len(names) < 4:
        raise Failed(f"{archive} has {len(names)} classes under train/ and test/; two halves need four")
    with np.load(folder / "images.npz") as arrays:
        train, test = ((arrays[f"x_{split}"], arrays[f"y_{split}"]) for split in ("train", "test"))
    return Images(train, test, names)


class Example:
    """One run, in one folder."""

    def __init__(self, folder: Path, console: Console, asked: argparse.Namespace) -> None:
        self.folder, self.console, self.asked = folder, console, asked
        folder.mkdir(parents=True)

    def run(self) -> None:
        """The teacher, the students, the table."""
        images = unpacked(self.asked.data, self.folder) if self.asked.data else digits()
        half = len(images.names) // 2
        theirs, ours = images.only(range(half)), images.only(range(half, 2 * half))
        self.console.print(f"the teacher's classes: {', '.join(theirs.names)}; the student's: {', '.join(ours.names)}")
        with serving(self.folder / "service") as (url, key), Client(url, key=key) as client:
            made = [*self.sent(client, "teacher", theirs, wide=4), *self.sent(client, "student", ours, wide=1)]
            data, network, our_data, our_network = [client.wait_ready(asset, timeout=300) for asset in made]
            teacher = self.teacher(client, theirs, data, network)
            asked = {arm: self.specs(arm, teacher, our_data, our_network) for arm in methods(self.asked.epochs)}
            self.console.print(f"kd is refused for this teacher: {self.refused(client, asked['with ab'][0])}")
            jobs = {arm: [client.jobs.create(spec) for spec in specs] for arm, specs in asked.items()}
            # The same training without a teacher, whatever the method was: one job serves both.
            jobs = {"alone": [job.baseline() for job in jobs["with ab"]], **jobs}
            done = iter(watch([job for arm in jobs.values() for job in arm], self.console))
            students = {arm: [next(done) for _ in started] for arm, started in jobs.items()}
            succeeded(*(job for arm in students.values() for job in arm))
        self.table(students)

    def sent(self, client: Client, name: str, images: Images, *, wide: int) -> tuple[Asset, Asset]:
        """A dataset and an architecture, which a worker now inspects."""
        path = self.folder / f"{name}.npz"
        images.save(path)
        upload = client.upload(path, purpose="dataset")
        return (
            client.datasets.create(name, upload=upload.id, format="npz", class_names=list(images.names)),
            client.architectures.create(name, architecture=architecture(images, wide=wide), normalization=normalization(images)),
        )

    def teacher(self, client: Client, images: Images, data: Asset, network: Asset) -> Asset:
        """Trained by the service on its own classes; its artifact is uploaded as a teacher."""
        n = min(TEACHER_IMAGES, len(images.train[1]))
        recipe = {"epochs": self.asked.teacher_epochs, "batch_size": 64, "optimizer": {"name": "sgd", "lr": 0.05}}
        spec = {
            "name": "the teacher",
            "student": {"architecture": network.id},
            "dataset": {"id": data.id, "take": {"total": n}, "validation": 0},
            "methods": [],
            "recipe": recipe,
        }
        (job,) = watch([client.jobs.create(spec)], self.console)
        succeeded(job)
        test = job.result["test"]
        self.console.print(f"the teacher, from {n:,} images: {test['accuracy']:.2%} of {test['n']} test images of its own classes")
        weights = next(path for path in job.download(self.folder / "teacher") if path.name == "model.safetensors")
        upload = client.upload(weights, purpose="teacher")
        described = {"architecture": architecture(images, wide=4), "normalization": normalization(images)}
        made = client.teachers.create("teacher", upload=upload.id, labels=list(images.names), **described)
        return client.wait_ready(made, timeout=120)

    def specs(self, arm: str, teacher: Asset, data: Asset, network: Asset) -> list[dict[str, Any]]:
        """One job for each seed."""
        taught = methods(self.asked.epochs)[arm]
        left = self.asked.epochs - sum(method.get("epochs", 0) for method in taught)
        return [
            {
                "name": f"{arm}, seed {seed}",
                "teacher": teacher.id,
                "student": {"architecture": network.id},
                "dataset": {"id": data.id, "take": {"total": self.asked.images}, "validation": 0, "seed": seed},
                "methods": taught,
                "recipe": {"epochs": left, "batch_size": 16, "optimizer": {"name": "sgd", "lr": 0.05}},
                "seed": seed,
            }
            for seed in range(self.asked.seeds)
        ]

    def refused(self, client: Client, spec: dict[str, Any]) -> str:
        """What the service says to a comparison of logits."""
        try:
            client.jobs.plan({**spec, "methods": [{"name": "kd"}]})
        except ApiError as wrong:
            return str(wrong).removeprefix("/teacher: ")
        raise Failed("kd was not refused, though the classes are others")

    def table(self, students: dict[str, list[Job]]) -> None:
        """Every student, and what can be said."""
        found = {arm: [100 * job.result["test"]["accuracy"] for job in jobs] for arm, jobs in students.items()}
        n = students["alone"][0].result["test"]["n"]
        self.console.print(
            f"\naccuracy in per cent on {n} test images, from {self.asked.images} images and {self.asked.epochs} epochs in all"
        )
        table = Table()
        for column in ("student", "mean", *(f"seed {seed}" for seed in range(self.asked.seeds))):
            table.add_column(column, justify="left" if column == "student" else "right", no_wrap=True)
        for arm, values in found.items():
            table.add_row(arm, *(f"{value:.2f}" for value in (statistics.mean(values), *values)))
        self.console.print(table)
        for arm in methods(self.asked.epochs):
            gain = difference(dict(enumerate(found[arm])), dict(enumerate(found["alone"])))
            assert gain is not None, "every arm has a job for each seed"
            self.console.print(f"{arm}: {verdict(gain)}")
        self.console.print("one pair of networks, one division of the classes, few images: an example, no benchmark")


def architecture(images: Images, *, wide: int) -> dict[str, Any]:
    """A plain convolutional network of two blocks for tiny images and of three for others."""
    channels = [8 * wide, 16 * wide, 32 * wide][: 2 if min(images.input[1:]) < 16 else 3]
    return {"family": "convnet", "channels": channels, "input": images.input, "classes": len(images.names)}


def normalization(images: Images) -> dict[str, list[float]]:
    """Of these images, in [0, 1]."""
    x = images.train[0] / 255
    return {"mean": np.atleast_1d(x.mean((0, 1, 2))).tolist(), "std": np.atleast_1d(x.std((0, 1, 2))).tolist()}


def verdict(gain: Difference) -> str:
    """What the gains say, and no more."""
    if gain.low is None or gain.high is None:
        return f"{gain.mean:+.2f} points; fewer than three seeds say nothing of others: try --seeds 5"
    told = "too few seeds to tell" if gain.low <= 0 <= gain.high else "better" if gain.mean > 0 else "worse"
    return f"{gain.mean:+.2f} points, 95 % t interval {gain.low:+.2f} to {gain.high:+.2f} over {gain.n} paired seeds: {told}"


def arguments() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(description="A teacher of five classes teaches a student of five others.")
    parser.add_argument("--data", type=Path, help="a tar archive of <name>/{train,test}/<class>/<image>; digits when left out")
    parser.add_argument("--images", type=int, default=50, help="images of the student's classes, all together (50)")
    parser.add_argument("--seeds", type=int, default=1, help="how often it is repeated (1)")
    parser.add_argument("--epochs", type=int, default=240, help="the student's epochs in all (240)")
    parser.add_argument("--teacher-epochs", type=int, default=10, help="the teacher's epochs (10)")
    parser.add_argument("--folder", type=Path, default=HERE.parents[1] / ".demo", help="where everything is put (.demo)")
    return parser.parse_args()


def main() -> int:
    """0 where the table was printed."""
    asked = arguments()
    return played(asked.folder, lambda folder, console: Example(folder, console, asked).run())


if __name__ == "__main__":
    sys.exit(main())
