"""Small things to train: a network with batch norms and dropout, coloured squares to tell apart, and a method that uses every word."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from core.anatomy import Anatomy, match, measure
from core.bench import Bench
from core.data import Batches, DatasetReport, Domain, Rows
from core.data.report import UNLABELLED
from core.events import Event, Phase, Step
from core.method import Fit, Lesson, Method, Scene, Surgery, Term, Weight, Weighted
from core.networks import Family, ImageShape
from core.optim import SGD, Linear, Recipe
from core.plan import Plan, plan
from core.run import run
from core.source import Sources
from core.spec import JobSpec
from core.taps import Pair, Tap, Tapped
from core.terms import CrossEntropy

CLASSES = 3
DOMAIN = Domain(0.0, 1.0, (0.5,), (0.25,))
"""Of data in [0, 1]."""
SHAPE = (2, 8, 8)


class ToyNet(nn.Module):
    """conv1, bn1, relu1, dropout, conv2, bn2, relu2, pool, fc; the second convolution halves the size."""

    def __init__(self, *, into: int, width: int, dropout: float, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(into, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(2 * width)
        self.relu2 = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        for module in self.children():
            x = module(x)
        return x


class Toy(Family):
    """A network of two convolutions."""

    reference: ClassVar[str] = "none"
    network: ClassVar[type[nn.Module]] = ToyNet

    family: Literal["toy"] = "toy"
    input: ImageShape = SHAPE
    classes: int = CLASSES
    width: int = 4
    dropout: float = 0.0

    def arguments(self) -> dict[str, Any]:
        return {"into": self.input[0], "width": self.width, "dropout": self.dropout, "classes": self.classes}


def squares(n: int, *, first: int = 0, classes: int = CLASSES, seed: int = 0) -> Rows:
    """Noise with one bright column a class: easy, but not at once."""
    draw = np.random.default_rng(seed)
    labels = np.arange(n, dtype=np.int64) % classes
    bank = draw.integers(0, 160, (n, SHAPE[1], SHAPE[2], SHAPE[0]), dtype=np.uint8)
    for row, label in enumerate(labels):
        bank[row, :, 2 * label : 2 * label + 2, 0] += 80
    return Rows(bank, labels, np.arange(n), first, classes, DOMAIN)


def without_labels(rows: Rows) -> Rows:
    """The same samples, of a transfer set."""
    return replace(rows, labels=np.full(len(rows.bank), UNLABELLED), classes=0)


def transfer_set(n: int) -> DatasetReport:
    """What an inspection would say of `without_labels(squares(n))` with a test split."""
    nothing = {"classes": 0, "class_names": (), "per_class": {"train": (), "test": ()}, "labelled": False}
    return report(n).model_copy(update=nothing)


def report(n: int, *, classes: int = CLASSES, shape: tuple[int, ...] = SHAPE) -> DatasetReport:
    """What an inspection would say of `squares(n)` with a test split."""
    per_class = tuple(len(range(label, n, classes)) for label in range(classes))
    return DatasetReport(
        input=shape,
        classes=classes,
        class_names=tuple(f"column {label}" for label in range(classes)),
        counts={"train": n, "test": n},
        per_class={"train": per_class, "test": per_class},
        mean=(0.3, 0.3),
        std=(0.2, 0.2),
        range=(0, 1),
        dtype="uint8",
    )


def spec(*methods: Method, teacher: bool = True, recipe: Recipe | None = None, **more: Any) -> JobSpec:
    """A job spec with these methods, the catalogue's or not."""
    validated = JobSpec.model_validate(
        {
            "teacher": "tch_1" if teacher else None,
            "student": {"architecture": "arc_1"},
            "dataset": {"id": "ds_1", "validation": 0.0},
            "recipe": {"epochs": 2, "batch_size": 8, "optimizer": {"name": "sgd", "lr": 0.05}} if recipe is None else recipe,
        }
        | more
    )
    return validated.model_copy(update={"methods": methods})


@dataclass
class Job:
    """Everything `run` wants, made anew each time: a resumed job starts in another process."""

    plan: Plan
    teacher: Tapped | None
    student: Tapped
    sources: Sources


def make(
    asked: JobSpec,
    *,
    teacher: Family | None = None,
    student: Family | None = None,
    n: int = 24,
    initial: int = 0,
    teacher_weights: Mapping[str, Tensor] | None = None,
    labelled: bool = True,
) -> Job:
    """A job on `n` squares; `initial` seeds the student's fresh weights."""
    teacher = teacher or (Toy(width=6) if asked.teacher else None)
    student = student or Toy()
    anatomies = [measure(family, normalization={"mean": [0.3], "std": [0.2]}) if family else None for family in (teacher, student)]
    assert anatomies[1] is not None
    described = report(n) if labelled else transfer_set(n)
    decided = plan(asked, anatomies[0], anatomies[1], dataset=described, teacher_dataset=report(n) if asked.teacher_dataset else None)
    tapped_teacher = None
    if teacher is not None:
        tapped_teacher = tapped(teacher, decided.teacher_taps, seed=1000)
        if teacher_weights is not None:
            tapped_teacher.network.load_state_dict(dict(teacher_weights))
    splits = (squares(n, seed=0), squares(9, first=n, seed=1), squares(15, first=n + 9, seed=2))
    train, validation, test = splits if labelled else map(without_labels, splits)
    batches = [
        Batches(
            train if fit.data == "job" else squares(n, seed=7),
            fit.recipe.batch_size,
            seed=asked.seed,
            augmentation=fit.recipe.augmentation,
            accumulate=fit.recipe.accumulate,
        )
        for fit in decided.fits
    ]
    sources = Sources(batches, validation, test)
    return Job(decided, tapped_teacher, tapped(student, decided.student_taps, seed=initial), sources)


def tapped(family: Family, taps: Iterable[Tap], *, seed: int) -> Tapped:
    """A network of this family with weights of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Tapped(family.build(), taps=taps, mean=[0.3], std=[0.2])


@dataclass
class Played:
    """What a run told, and what could have been kept at each moment until the test is told: (number of events told, frozen bench)."""

    events: list[Event]
    kept: list[tuple[int, bytes]]
    weights: dict[str, Tensor]


def play(job: Job, *, resume: bytes | None = None, report_seconds: float = 0.0, freeze: bool = True) -> Played:
    """Run a job to its end, freezing at every moment, with a consumer that draws from torch's global generator."""
    played = Played([], [], {})
    benches: list[Bench] = []

    def keep(bench: Bench) -> None:
        torch.rand(3)
        benches[:] = [bench]
        if freeze:
            played.kept.append((len(played.events), bench.freeze()))

    stream = run(job.plan, job.teacher, job.student, job.sources, resume=resume, keep=keep, report_seconds=report_seconds)
    evaluating = False
    for event in stream:
        torch.rand(2)
        evaluating = evaluating or (isinstance(event, Phase) and event.phase == "evaluate")
        if event is not None and not isinstance(event, Phase):
            played.events.append(timeless(event))
        elif evaluating and benches and freeze:  # as `Checkpoints.look` does where a stop comes late
            played.kept.append((len(played.events), benches[0].freeze()))
    played.weights = {name: value.clone() for name, value in job.student.network.state_dict().items()}
    return played


def timeless(event: Event) -> Event:
    """An event without the one number that a clock decides."""
    if isinstance(event, Step):
        return Step(event.phase, event.fit, event.epoch, event.step, event.done, event.of, event.values)
    return event


def scramble(job: Job) -> None:
    """Spoil all that a checkpoint must bring back: what is not brought back is then seen."""
    modules: list[nn.Module] = [job.student.network]
    modules += [weighted.term for fit in job.plan.fits for weighted in fit.terms.values()]
    with torch.no_grad():
        for module in modules:
            for tensor in (*module.parameters(), *module.buffers()):
                tensor.add_(1) if tensor.dtype.is_floating_point else tensor.add_(3)


class Hint(Term):
    """Mean squared difference of a teacher's map and the student's behind a learned 1x1 convolution; notes how long the convolution is."""

    def __init__(self, pair: Pair, channels: tuple[int, int]) -> None:
        super().__init__()
        self.teacher_taps, self.student_taps = (pair.teacher,), (pair.student,)
        self.connector = nn.Conv2d(channels[1], channels[0], 1, bias=False)

    def forward(self, scene: Scene) -> Tensor:
        assert scene.t is not None
        scene.note("toy.connector", self.connector.weight.square().sum())
        mapped: Tensor = self.connector(scene.s.at[self.student_taps[0]])
        return (mapped - scene.t.at[self.teacher_taps[0]]).square().mean()

    def watch(self, scene: Scene) -> Mapping[str, Tensor]:
        assert scene.t is not None
        near = (self.connector(scene.s.at[self.student_taps[0]]) - scene.t.at[self.teacher_taps[0]]).abs() < 0.5
        return {"toy.near": near.float().mean()}


class Slope(Term):
    """Mean squared difference of both networks' input gradients of the true class's logit, at inputs that noise has moved."""

    teacher = "network"
    differentiates_input = True
    reads_labels = True
    optimum = 0.0

    def forward(self, scene: Scene) -> Tensor:
        assert scene.teacher is not None
        moved = scene.x + 0.01 * (scene.random()[..., None, None] - 0.5)
        slopes = []
        for network, graph in ((scene.student, True), (scene.teacher, False)):
            leaf = moved.detach().requires_grad_()
            with network.quiet():
                chosen = network(leaf).logits.gather(1, scene.y[:, None]).sum()
            slopes.append(torch.autograd.grad(chosen, leaf, create_graph=graph)[0])
        return (slopes[0] - slopes[1].detach()).square().sum((1, 2, 3)).mean()


class Drift(Term):
    """Mean squared distance of the student's logits from their running mean, which is this term's own state."""

    teacher = "none"
    mean: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(classes))

    def forward(self, scene: Scene) -> Tensor:
        logits = scene.s.logits.float()
        loss = (logits - self.mean).square().mean()
        with torch.no_grad():
            self.mean.lerp_(logits.mean(0), 0.1)
        return loss


def loosen(head: str) -> Surgery:
    """A surgery that uses all it is given: the head's bias answers the first batch's mean, its weight gets noise."""

    def operate(teacher: Tapped | None, student: Tapped, x: Tensor, generator: torch.Generator) -> None:
        fc = student.network.get_submodule(head)
        assert isinstance(fc, nn.Linear)
        with torch.no_grad(), student.quiet():
            wanted = torch.zeros(fc.out_features)
            if teacher is not None:
                with teacher.quiet():
                    wanted = teacher(x).logits.mean(0)[: fc.out_features]
            fc.bias.add_(wanted - student(x).logits.mean(0))
            fc.weight.add_(0.01 * torch.rand(fc.weight.shape, generator=generator))

    return operate


class ToyMethod(Method):
    """Uses each part of the vocabulary once."""

    reference: ClassVar[str] = "none"
    pairs_by = "out"

    name: Literal["toy"] = "toy"
    epochs: int = Field(1, ge=1)
    pairs: tuple[Pair, ...] = ()
    slope: Weight = Linear(linear=(1.0, 0.0))
    drift: Weight = 0.1
    teacher_mode: Literal["eval", "train"] = "eval"

    def lesson(self, teacher: Anatomy | None, student: Anatomy) -> Lesson:
        assert teacher is not None
        pair = self.pairs[0] if self.pairs else match(teacher, student)[0]
        channels = (teacher.require(pair.teacher, "/pairs/0/0")[0], student.require(pair.student, "/pairs/0/1")[0])
        hint = Hint(pair, channels)
        recipe = Recipe(epochs=self.epochs, optimizer=SGD(lr=0.02))
        first = Fit({"hint": Weighted(hint, 1.0)}, recipe, only=("conv1", "bn1"), teacher_mode=self.teacher_mode)
        second = Fit({"hint": Weighted(hint, 0.5), "labels": Weighted(CrossEntropy(), 1.0)}, recipe, data="teacher")
        train = {"toy.slope": Weighted(Slope(), self.slope), "toy.drift": Weighted(Drift(student.classes), self.drift)}
        return Lesson((loosen("fc"),), (first, second), train)
