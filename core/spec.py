"""What a user asks for: the job spec, and what makes two of them the same training."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from core.evaluate.boundary import Boundary
from core.evaluate.fgsm import FGSM
from core.evaluate.measure import Measure
from core.evaluate.parameter_noise import ParameterNoise
from core.initialisers import Initialiser
from core.method import Method
from core.methods import catalogue
from core.optim import Recipe, Weight


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _id(prefix: str, what: str) -> Any:
    return Field(pattern=rf"^{prefix}_[0-9a-z]{{1,64}}$", description=f"The id of {what}.")


_Seed = Annotated[int, Field(ge=0, le=2**53 - 1)]


class Take(_Part):
    """A part of the training split, stratified and seeded. Exactly one of the three."""

    total: int | None = Field(None, ge=1, description="This many images in all, in the proportions of the classes.")
    per_class: int | None = Field(None, ge=1, description="This many images of every class.")
    fraction: float | None = Field(None, gt=0, le=1, description="This part of the images of every class.")

    @model_validator(mode="after")
    def _exactly_one(self) -> "Take":
        if sum(value is not None for value in (self.total, self.per_class, self.fraction)) != 1:
            raise ValueError("take needs exactly one of total, per_class and fraction")
        return self


class DatasetRef(_Part):
    """A dataset and how this job divides it."""

    id: str = _id("ds", "a dataset")
    classes: Annotated[tuple[Annotated[str, Field(max_length=200)], ...], Field(min_length=2, max_length=100_000)] | None = Field(
        None,
        description="Use only the samples of these classes, by name, in every split; logits of the others are masked. All when left out.",
    )
    take: Take | None = Field(None, description="Use only a part of the training split.")
    validation: float = Field(
        0.1, ge=0, le=0.9, description="The part of the training images that is set aside where the dataset has no validation split."
    )
    seed: _Seed = Field(0, description="Which images are taken and set aside.")
    views: int | None = Field(
        None, ge=1, le=100_000, description="How many augmented views of an image exist; epochs without end when left out."
    )
    view_seed: _Seed = Field(0, description="The draws of the views; apart from the job's seed, so that jobs may share them.")

    @field_validator("classes")
    @classmethod
    def _each_class_once(cls, classes: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for name, times in Counter(classes or ()).items():
            if times > 1:
                raise ValueError(f"the class {name!r} stands here more than once")
        return classes


class TeacherDatasetRef(DatasetRef):
    """The teacher's own data, and which of it is trained on."""

    validation: float = Field(
        0.0, ge=0, le=0.9, description="The part of the training images that is left out: nothing of the teacher's data is validated on."
    )


class StudentRef(_Part):
    """The network to train."""

    architecture: str = _id("arc", "an architecture")
    weights: Annotated[str, Field(pattern=r"^(upl|art|job)_[0-9a-z]{1,64}$")] | Initialiser | None = Field(
        None,
        description=(
            "An upload, an artifact or a finished job whose student to start from, or how to draw fresh weights: "
            '`{"initialiser": "xavier"}`. The architecture\'s own fresh weights when left out. A method may overwrite them before the '
            "training."
        ),
    )

    @field_validator("weights")
    @classmethod
    def _default_is_left_out(cls, weights: str | Initialiser | None) -> str | Initialiser | None:
        # The same training, written in two ways, has one identity.
        return None if isinstance(weights, Initialiser) and weights.initialiser == "default" else weights


class Limits(_Part):
    """What a job may use."""

    seconds: float | None = Field(None, gt=0, le=1e8, description="The longest time the job may run, all attempts together.")


if TYPE_CHECKING:
    AnyMethod = Method
else:
    AnyMethod = Annotated[reduce(or_, catalogue().values()), Field(discriminator="name")]


def _is_word(asked: object) -> Literal["word", "object"]:
    return "object" if isinstance(asked, (Mapping, Measure)) else "word"


AnyMeasure = FGSM | ParameterNoise | Boundary
_Word = Literal["accuracy", "agreement", "fgsm", "parameter_noise", "boundary"]
_Asked = Annotated[
    Annotated[_Word, Tag("word")] | Annotated[Annotated[AnyMeasure, Field(discriminator="name")], Tag("object")], Discriminator(_is_word)
]
"""A measure by its name, with its defaults, or with parameters of one's own."""
Wanted = Literal["accuracy", "agreement"] | AnyMeasure
"""What is measured, parameters and all; the first two have none."""
_BY_NAME: Mapping[str, Wanted] = {
    "accuracy": "accuracy",
    "agreement": "agreement",
    "fgsm": FGSM(),
    "parameter_noise": ParameterNoise(),
    "boundary": Boundary(),
}
NEEDS_TEACHER = frozenset({"agreement", "boundary"})
"""What compares the student's answers with a teacher's."""


ExportFormat = Literal["safetensors", "onnx", "onnx_fp16", "onnx_int8", "torch_export", "int8"]
"""The files of `core/export`, which lies above this one; a test holds the two together."""


class JobSpec(_Part):
    """A distillation job, whole: nothing else decides how the student is trained."""

    name: str = Field("", max_length=200, description="For people.")
    teacher: str | None = Field(
        None,
        pattern=r"^(tch|job)_[0-9a-z]{1,64}$",
        description="The id of a teacher, or of a finished job, whose student teaches; left out where no method needs one.",
    )
    student: StudentRef
    dataset: DatasetRef
    label_map: dict[str, str | Annotated[int, Field(ge=0)]] | None = Field(
        None,
        min_length=1,
        max_length=100_000,
        description=(
            "Which output of the teacher, by its label or its number, answers for which class of the dataset. Left out, equal names belong "
            "together. Outputs that are not named are left out of every softmax."
        ),
    )
    teacher_dataset: TeacherDatasetRef | None = Field(None, description="The teacher's own data, where a method trains on it.")
    methods: tuple[AnyMethod, ...] = Field(
        (), max_length=16, description="What the teacher teaches; their lessons add up. None is the baseline."
    )
    recipe: Recipe = Field(default=Recipe(), description="How the student learns.")
    evaluate: tuple[_Asked, ...] = Field(
        ("accuracy",),
        max_length=8,
        description=(
            "What is measured on the test split at the end, of the student and of a teacher with the same classes; each at most once, a "
            "name alone meaning its defaults. `accuracy` always is; `agreement` and `boundary` compare the student with the teacher. On a "
            "dataset without labels the agreement is measured, and nothing else."
        ),
    )
    exports: tuple[ExportFormat, ...] = Field(
        ("safetensors",),
        max_length=8,
        description="The formats of the student's files, each at most once. One that does not answer as the student does is not offered.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where to run: `auto` takes any worker, `cuda` only one with a GPU.")
    limits: Limits = Field(default=Limits(), description="When to stop the job whatever it has reached.")
    seed: _Seed = Field(0, description="Initial weights, order of the data, dropout and the draws of the terms.")
    metadata: dict[Annotated[str, Field(min_length=1, max_length=64)], Annotated[str, Field(max_length=512)]] = Field(
        default={}, max_length=16, description="The user's own notes."
    )

    @field_validator("evaluate")
    @classmethod
    def _each_measure_once(cls, asked: tuple[_Asked, ...]) -> tuple[_Asked, ...]:
        names = [name_of(each) for each in asked]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{name} is measured once, and stands here {names.count(name)} times")
        return asked

    @field_validator("exports")
    @classmethod
    def _each_format_once(cls, asked: tuple[ExportFormat, ...]) -> tuple[ExportFormat, ...]:
        for name, times in Counter(asked).items():
            if times > 1:
                raise ValueError(f"{name} is exported once, and stands here {times} times")
        return asked

    @property
    def measures(self) -> tuple[Wanted, ...]:
        """What `evaluate` asks for, with the parameters of what was asked for by name alone."""
        return tuple(_BY_NAME[each] if isinstance(each, str) else each for each in self.evaluate)


def name_of(asked: str | Measure) -> str:
    """What an entry of `evaluate` measures."""
    return asked if isinstance(asked, str) else asked.name


_NO_PART_OF_TRAINING = {"name", "metadata", "limits", "exports", "evaluate"}


def identity(spec: JobSpec) -> str:
    """The sha256 of all that training depends on: two specs with one identity train the same student. Defaults written
    out or left out are one.
    """
    # A map that was left out is no part of it: specs from before there was one keep their identity.
    absent = {"label_map"} if spec.label_map is None else set[str]()
    depends = spec.model_dump(mode="json", exclude=_NO_PART_OF_TRAINING | absent)
    return hashlib.sha256(json.dumps(depends, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def baseline(spec: JobSpec, epochs: int) -> JobSpec:
    """The same job without a teacher: no methods, the task loss alone, and as many `epochs` as all fits of the plan
    together (`Plan.epochs`).
    """
    return spec.model_copy(
        update={
            "name": f"{spec.name} (baseline)".strip()[-200:],
            "teacher": None,
            "teacher_dataset": None,
            "label_map": None,
            "methods": (),
            "recipe": spec.recipe.model_copy(update={"task_weight": 1.0, "epochs": epochs}),
            "evaluate": tuple(asked for asked in spec.evaluate if name_of(asked) not in NEEDS_TEACHER),
        }
    )


__all__ = ["DatasetRef", "ExportFormat", "JobSpec", "Limits", "StudentRef", "Take", "TeacherDatasetRef", "Weight", "baseline", "identity"]
