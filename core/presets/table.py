"""A published table: rows that teach in different ways, columns that differ in epochs, data or networks, and a job spec for every cell."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Networks(_Part):
    """Who teaches whom: two architectures, without the `input` and `classes` that the dataset decides."""

    teacher: Mapping[str, Any]
    student: Mapping[str, Any]


class Column(_Part):
    """What one column sets for all of its rows.

    `epochs` are those of the transfer fit and of the training: every row has their sum, but for those that `budgets` gives others.
    `take` is the job spec's, None for all images. `published` has test errors in %, by row, and `measured` other published values, by what
    is measured and by row; rows that are missing were not published.
    """

    title: str
    epochs: tuple[int, int]
    networks: Networks
    budgets: Mapping[str, tuple[int, int]] = Field(default_factory=dict)
    take: Mapping[str, Any] | None = None
    batch_size: int | None = None
    published: Mapping[str, float] = Field(default_factory=dict)
    measured: Mapping[str, Mapping[str, float]] = Field(default_factory=dict)

    def budget(self, row: str) -> tuple[int, int]:
        """The epochs of a row's transfer fit, if it has one, and of its training."""
        return self.budgets.get(row, self.epochs)


class Row(_Part):
    """A way to teach: the method with a transfer fit of its own, if there is one, and those that act before or while training. With
    `as_teacher` the student is a network like the teacher.
    """

    title: str
    as_teacher: bool = False
    transfer: Mapping[str, Any] | None = None
    train: tuple[Mapping[str, Any], ...] = ()
    task_weight: float = 0.0
    note: str = ""


class Table(_Part):
    """Rows times columns.

    `spec` is what all cells share. `against` are the rows that every row is compared with. `normalize` says whether the networks normalise
    by the data's measurements. `prefix`, where there is one, makes every published cell a preset `<prefix>_<column>_<row>`. `data`, `input`
    and `classes` are those of the published dataset, `source` is where the errors were published. `teacher` is what a teacher's own recipe
    has otherwise than that of `spec`; it learns from the `teacher_dataset` of `spec` where there is one.
    """

    title: str
    note: str
    source: str
    data: str
    input: tuple[int, ...]
    classes: int
    spec: Mapping[str, Any]
    rows: Mapping[str, Row]
    columns: Mapping[str, Column]
    teacher: Mapping[str, Any] = Field(default_factory=dict)
    against: tuple[str, ...] = ("kd", "none")
    normalize: bool = True
    prefix: str | None = None

    def job(self, row: str, column: str) -> dict[str, Any]:
        """The job spec of a cell, without the ids: transfer and training together have the column's epochs, whatever the row."""
        way, setting = self.rows[row], self.columns[column]
        transfer, train = setting.budget(row)
        methods = [dict(method) for method in way.train]
        if way.transfer is not None:
            methods.insert(0, {**way.transfer, "epochs": transfer})
        recipe = {
            **self.spec["recipe"],
            "epochs": train if way.transfer is not None else transfer + train,
            "task_weight": way.task_weight,
        }
        if setting.batch_size is not None:
            recipe["batch_size"] = setting.batch_size
        return {
            **self.spec,
            "name": f"{way.title}, {setting.title}",
            "dataset": {**self.spec["dataset"], "take": None if setting.take is None else dict(setting.take)},
            "methods": methods,
            "recipe": recipe,
        }

    def student(self, row: str, column: str) -> Mapping[str, Any]:
        """The architecture of a cell's student."""
        networks = self.columns[column].networks
        return networks.teacher if self.rows[row].as_teacher else networks.student

    def presets(self) -> dict[str, dict[str, Any]]:
        """Every published cell as a preset, by name; none where the table has no prefix."""
        if self.prefix is None:
            return {}
        return {
            f"{self.prefix}_{column}_{row}": self._preset(row, column)
            for column, setting in self.columns.items()
            for row in setting.published
        }

    def _sentence(self, row: str, column: Column) -> str:
        """What a list of presets shows of one."""
        transfer, train = column.budget(row)
        return f"{self.rows[row].title}, {column.title}; {transfer}+{train} epochs; {column.published[row]} % test error published."

    def _preset(self, row: str, column: str) -> dict[str, Any]:
        setting = self.columns[column]
        whole = {"input": list(self.input), "classes": self.classes}
        return {
            "note": f"{self._sentence(row, setting)} {self.rows[row].note.strip()} {self.note.strip()}".replace("  ", " "),
            "networks": {"teacher": {**setting.networks.teacher, **whole}, "student": {**self.student(row, column), **whole}},
            "published": {"error_percent": setting.published[row], "source": self.source},
            **self.job(row, column),
        }
