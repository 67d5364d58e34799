"""At which size a published table is run: as published, or small enough for two CPU cores."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from core.presets.table import Column, Networks, Row, Table


@dataclass(frozen=True, slots=True)
class Scale:
    """The columns of each table that are run, with what is changed in them (a table that is not named is run as it is); what the teachers'
    recipe has otherwise than the students'; and what methods and measures have otherwise, by their names.
    """

    name: str
    columns: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    teacher: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def of(self, name: str, table: Table) -> Table:
        """The table at this scale."""
        changes = self.columns.get(name, {column: {} for column in table.columns})
        # By way of validation: `model_copy` would take a misspelt field.
        columns = {column: Column.model_validate({**dict(table.columns[column]), **change}) for column, change in changes.items()}
        rows = {row: self._row(way) for row, way in table.rows.items()}
        return table.model_copy(update={"columns": columns, "rows": rows, "spec": {**table.spec, **self._evaluate(table)}})

    def _row(self, row: Row) -> Row:
        transfer = None if row.transfer is None else self._changed(row.transfer)
        return row.model_copy(update={"transfer": transfer, "train": tuple(self._changed(method) for method in row.train)})

    def _evaluate(self, table: Table) -> dict[str, Any]:
        asked = table.spec.get("evaluate", [])
        return {"evaluate": [each if isinstance(each, str) else self._changed(each) for each in asked]} if asked else {}

    def _changed(self, named: Mapping[str, Any]) -> dict[str, Any]:
        return {**named, **self.settings.get(named["name"], {})}

    def recipe(self, table: Table) -> dict[str, Any]:
        """How a teacher is trained: from the labels, with the recipe of the table but for what it and the scale say otherwise."""
        return {**table.spec["recipe"], "task_weight": 1.0, **table.teacher, **self.teacher}


def words(column: Column) -> str:
    """What a column sets, in words."""
    take = dict(column.take or {})
    if "total" in take:
        images = f"{take['total']:,} images"
    else:
        images = f"{100 * take['fraction']:g} % of the images" if "fraction" in take else "all images"
    batch = f", batch {column.batch_size}" if column.batch_size else ""
    networks = f"{network(column.networks.teacher)} to {network(column.networks.student)}"
    return f"{column.epochs[0]}+{column.epochs[1]} epochs, {images}{batch}, {networks}"


def changes(scale: Scale, table: Table) -> list[str]:
    """What a scale changes in all columns of a table, and what the teachers' recipe has otherwise than the students', in words."""
    parts = [part for row in table.rows.values() for part in (row.transfer, *row.train)]
    parts += [each for each in table.spec.get("evaluate", []) if not isinstance(each, str)]
    names = {part["name"] for part in parts if part is not None}
    told = [f"{name} with {key} {value}" for name, settings in scale.settings.items() if name in names for key, value in settings.items()]
    return [*told, *(f"teachers' recipe: {key} {json.dumps(value)}" for key, value in {**table.teacher, **scale.teacher}.items())]


def network(architecture: Mapping[str, Any]) -> str:
    """A network in words: what its family is called by, and then every other setting.

    >>> network({"family": "resnet", "depth": 8, "stem_stride": 2})
    'ResNet-8 with stem stride 2'
    """
    settings = dict(architecture)
    match settings.pop("family"):
        case "wrn":
            called = f"WRN-{settings.pop('depth')}-{settings.pop('widen')}"
        case "resnet":
            called = f"ResNet-{settings.pop('depth')}"
        case "convnet":
            called = f"convnet {'-'.join(map(str, settings.pop('channels')))}"
        case family:
            called = family
    return called + "".join(f" with {name.replace('_', ' ')} {value}" for name, value in settings.items())


def _pair(teacher: tuple[int, int], student: tuple[int, int]) -> Networks:
    both = [{"family": "wrn", "depth": depth, "widen": widen, "stem_stride": 2} for depth, widen in (teacher, student)]
    return Networks(teacher=both[0], student=both[1])


def _resnets(student: int) -> Networks:
    both = [{"family": "resnet", "depth": depth, "stem_stride": 2} for depth in (26, student)]
    return Networks(teacher=both[0], student=both[1])


_CONVNETS = Networks(teacher={"family": "convnet", "channels": [32, 64, 128]}, student={"family": "convnet", "channels": [16, 32, 64]})


_BOTH = _pair((16, 2), (10, 1))
_SIZES = {
    "depth": _pair((16, 2), (10, 2)),
    "channel": _pair((16, 2), (16, 1)),
    "both": _BOTH,
    "tiny": _pair((16, 4), (10, 1)),
    "same": _pair((16, 2), (16, 2)),
}

_FEW = 32
"""A batch for small sets: the published epochs have 391 steps of 128, and so few images in as large batches would be hardly trained on."""

FULL = Scale("full")
SMALL = Scale(
    "small",
    columns={
        "ab_epochs": {column: {"networks": _BOTH, "take": {"total": 5000}, "batch_size": _FEW} for column in ("1+1", "1+5", "3+12")},
        "ab_data": {
            column: {"networks": _BOTH, "take": {"total": total}, "epochs": (5, 25), "batch_size": _FEW}
            for column, total in (("0.1%", 100), ("1%", 500), ("5%", 2000))
        },
        "ab_sizes": {
            column: {"networks": networks, "take": {"total": 2000}, "epochs": (5, 25), "batch_size": _FEW}
            for column, networks in _SIZES.items()
        },
        "bss_cifar10": {
            f"resnet{depth}": {"networks": _resnets(depth), "take": {"total": 2000}, "epochs": (4, 16), "batch_size": 64}
            for depth in (8, 14, 20)
        },
        "bss_images": {
            column: {"networks": _resnets(8), "epochs": (4, 16), "batch_size": 64} for column in ("500", "1000", "2000", "5000")
        },
        **{
            f"few_data_{data}": {
                column: {"networks": _CONVNETS, "epochs": epochs}
                for column, epochs in (("1000", (10, 40)), ("500", (15, 60)), ("100", (50, 200)), ("50", (50, 200)))
            }
            for data in ("cifar10", "fashion_mnist")
        },
    },
    teacher={"epochs": 6, "batch_size": 128, "schedule": {"name": "cosine", "warmup": 0.05}, "restart": False},
    # The published weights of these three rows are not known, and the methods' own were made for larger maps and longer trainings. Chosen
    # once, for all tables, columns, seeds and data, among three to five values each: 500 images of Fashion-MNIST, 5+25 epochs, seed 1000,
    # judged on 3,000 other images of its training split. KD, FSP and AB keep their published or default ones.
    # BSS attacks a quarter of a batch, as the published code does of 256. Of the boundary no more is measured than takes a few seconds.
    settings={
        "at": {"weight": 30.0},
        "bss": {"samples": 16},
        "fitnet": {"weight": 100.0},
        "jacobian": {"weight": 10.0},
        "boundary": {"samples": 64},
    },
)
SCALES = {scale.name: scale for scale in (FULL, SMALL)}
