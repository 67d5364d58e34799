"""Small students of known weights and the facts about them, and the formats that are made of them."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from core.data.report import UNLABELLED, Domain
from core.data.rows import Rows
from core.events import Event, Exported
from core.export import Facts
from core.export.offer import Offer, Weights, offer
from core.networks import parse
from core.taps import Tapped
from tests.core.folders import digits


def facts_of(**changes: Any) -> Facts:
    family = parse({"family": "convnet", "input": [1, 8, 8], "classes": 3, "channels": [4, 8]})
    facts = Facts(
        name="digits, small",
        family=family,
        normalization={"mean": [0.3], "std": [0.25]},
        class_names=("zero", "one", "two"),
        range=(0.0, 1.0),
        test={"accuracy": 0.9125, "loss": 0.31, "n": 360},
        teacher={"accuracy": 0.975, "n": 360, "parameters": 24_058, "flops": 47_000, "bytes": 98_000},
        curves={},
        spec={"name": "digits, small", "methods": [{"name": "kd", "temperature": 4.0}], "recipe": {"epochs": 30}, "seed": 7},
        seed=7,
        epochs=30,
        parameters=1_234,
        flops=5_432,
        hardware="cpu, 2 threads",
    )
    return dataclasses.replace(facts, **changes)


def student_of(facts: Facts) -> Tapped:
    """A student with fresh weights whose batch norms have seen some data."""
    torch.manual_seed(0)
    space = facts.normalization or {}
    student = Tapped(facts.family.build(), mean=space.get("mean"), std=space.get("std")).train()
    student(torch.rand(16, *facts.family.input))
    return student


def taught(facts: Facts, steps: int = 60) -> Tapped:
    """A student that has learnt the digits well enough that rounding does not change its mind."""
    student = student_of(facts)
    x, y = (torch.from_numpy(array[:600]) for array in digits())
    x = x[:, None].float() / 255
    optimizer = torch.optim.Adam(student.parameters(), lr=0.01)
    for step in range(steps):
        rows = torch.arange(100) + 100 * (step % 6)
        loss = F.cross_entropy(student(x[rows]).logits, y[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return student


def rows_of(first: int, n: int, *, classes: int = 10, labelled: bool = True) -> Rows:
    """Digits, from `first` on."""
    x, y = digits()
    labels = y[first : first + n] % classes if labelled else np.full(n, UNLABELLED)
    return Rows.whole(x[first : first + n, ..., None], labels, classes=classes if labelled else 0, domain=Domain(0, 1, (0.3,), (0.38,)))


def offered(
    folder: Path, student: Tapped, facts: Facts, *formats: str, teacher: Weights | None = None, test: Rows | None = None
) -> tuple[dict[str, Offer], list[Event]]:
    """What became of each format in a job folder, and what was told; compared on 300 digits and calibrated on 600 others."""
    told = list[Event]()
    test = rows_of(1200, 300, classes=facts.family.classes) if test is None else test
    train = rows_of(0, 600, classes=facts.family.classes)
    made = offer(
        formats,
        student,
        facts=facts,
        teacher=teacher,
        test=test,
        train=train,
        folder=folder,
        threads=1,
        look=lambda doing: None,
        tell=told.append,
    )
    return {each.format: each for each in made}, told


def exports_of(told: list[Event]) -> dict[str, Exported]:
    """The exports among some events, by format."""
    return {event.format: event for event in told if isinstance(event, Exported)}
