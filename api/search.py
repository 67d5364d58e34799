"""What a search is: the fields that it tries, by their paths into a job spec, and the job specs that come of them."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from api.findings import Finding, findings
from core.errors import Refused
from core.spec import JobSpec

Params = dict[str, Any]
"""What one trial tries: path to value, as the value stands in the job's spec."""

_EXACT = 2**53


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Choice(_Part):
    """One of some values: of anything that may stand there."""

    choice: tuple[Any, ...] = Field(min_length=1, max_length=100)


class Uniform(_Part):
    """A number between two, each as likely as the next."""

    uniform: tuple[float, float]

    @model_validator(mode="after")
    def _rises(self) -> "Uniform":
        if not self.uniform[0] < self.uniform[1]:
            raise ValueError("uniform needs [lo, hi] with lo < hi")
        return self


class Log(_Part):
    """A number between two above 0, each order of magnitude as likely as the next."""

    log: tuple[float, float]

    @model_validator(mode="after")
    def _rises(self) -> "Log":
        if not 0 < self.log[0] < self.log[1]:
            raise ValueError("log needs [lo, hi] with 0 < lo < hi")
        return self


_Whole = Annotated[int, Field(ge=-_EXACT, le=_EXACT)]
_Step = Annotated[int, Field(ge=1, le=_EXACT)]


class Int(_Part):
    """A whole number between two, both of them possible, by steps."""

    int: tuple[_Whole, _Whole]
    step: _Step = 1

    @model_validator(mode="after")
    def _rises(self) -> "Int":
        lo, hi = self.int
        if not lo < hi:
            raise ValueError("int needs [lo, hi] with lo < hi")
        if (hi - lo) % self.step:
            raise ValueError(f"steps of {self.step} from {lo} do not reach {hi}")
        return self


def _kinds(asked: object) -> list[str]:
    held = asked if isinstance(asked, Mapping) else type(asked).model_fields if isinstance(asked, BaseModel) else ()
    return [name for name in ("choice", "uniform", "log", "int") if name in held]


def _kind(asked: object) -> str:
    return _kinds(asked)[0]


def _tag(asked: object) -> str:
    # No field has this name: where pydantic says which member of the union was tried, it is not taken for a part of the body.
    return f"<{_kind(asked)}>"


def _is_one_kind(asked: Any) -> Any:
    if len(_kinds(asked)) != 1:
        raise ValueError('it needs one of choice, uniform, log and int, as in {"choice": [1, 2]} or {"log": [0.001, 1]}')
    return asked


Domain = Annotated[
    Annotated[Choice, Tag("<choice>")] | Annotated[Uniform, Tag("<uniform>")] | Annotated[Log, Tag("<log>")] | Annotated[Int, Tag("<int>")],
    Discriminator(_tag),
    BeforeValidator(_is_one_kind),
]


class Objective(_Part):
    """What a trial is judged by: the validation after the last epoch of its training."""

    metric: Literal["validation_accuracy", "validation_loss", "validation_agreement"] = Field(
        "validation_accuracy", description="A dataset without labels knows the agreement with the teacher alone, and no other does."
    )
    goal: Literal["max", "min"] | None = Field(None, description="Left out: min of the loss, max of the others.")

    @property
    def maximizes(self) -> bool:
        """Whether more is better."""
        return self.goal == "max" or (self.goal is None and self.metric != "validation_loss")


class Pruner(_Part):
    """When a running trial is given up: its best value so far is worse than the median, or that percentile, of the completed trials at the
    same epoch."""

    name: Literal["median", "percentile"] = "median"
    percentile: float = Field(50.0, gt=0, lt=100, description="Of `percentile`: the best part of the trials, in percent, that goes on.")
    startup_trials: int = Field(5, ge=1, le=1000, description="No trial is given up before so many have completed.")
    warmup_epochs: int = Field(0, ge=0, le=100_000, description="No trial is given up in its first epochs.")

    @model_validator(mode="after")
    def _median_is_the_middle(self) -> "Pruner":
        if self.name == "median" and self.percentile != 50:
            raise ValueError('the median is the percentile 50; for another say "name": "percentile"')
        return self


class SweepSpec(_Part):
    """A search over job specs."""

    name: str = Field("", max_length=180, description="For people.")
    base: JobSpec = Field(description="The job whose fields are varied; it must be one that could run as it is.")
    space: dict[str, Domain] = Field(
        min_length=1,
        max_length=16,
        description=(
            "What to try, by path into the base: `methods.0.temperature`, or as a JSON pointer. A field is one of `choice`, `uniform`, "
            "`log` and `int`."
        ),
    )
    strategy: Literal["grid", "random", "tpe"] = Field("tpe", description="`grid` tries every point of choices and whole numbers, once.")
    max_jobs: int = Field(
        24, ge=1, le=500, description="Trials in all, or as many as the space has points, if those are fewer; a grid must not have more."
    )
    max_parallel: int = Field(4, ge=1, le=64, description="Trials queued or running at one time.")
    objective: Objective = Objective()
    pruner: Pruner | None = Field(None, description="When to give a trial up. Left out: the median under `tpe`, else never; null: never.")
    seeds: int = Field(3, ge=1, le=20, description="Fresh seeds that the best trial is run with again before it is reported.")
    seed: int = Field(0, ge=0, le=_EXACT - 1, description="Of what the strategy draws.")
    metadata: dict[Annotated[str, Field(min_length=1, max_length=64)], Annotated[str, Field(max_length=512)]] = Field(
        default={}, max_length=16, description="The user's own notes."
    )

    @model_validator(mode="before")
    @classmethod
    def _tpe_prunes(cls, given: Any) -> Any:
        if isinstance(given, dict) and "pruner" not in given and given.get("strategy", "tpe") == "tpe":
            return {**given, "pruner": {"name": "median"}}
        return given


_UNMEASURED = "no trial would be better or worse for it"
_OTHER_IMAGES = "trials that train or are validated on other images cannot be compared"
_APART: Mapping[tuple[str, ...], str] = {
    **{(name,): _UNMEASURED for name in ("name", "metadata", "evaluate", "exports", "limits", "device")},
    **{("dataset", name): _OTHER_IMAGES for name in ("id", "classes", "take", "validation", "seed")},
    **{path: "a seed that wins is luck; the best trial is run again with fresh ones" for path in (("seed",), ("dataset", "view_seed"))},
}
"""Fields that no search may vary, and why."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One field of a space: where it stands, what it may be, and the values of a choice as they stand in a spec."""

    path: str
    steps: tuple[str, ...]
    domain: Choice | Uniform | Log | Int
    values: tuple[Any, ...] = ()

    def grid(self) -> Sequence[Any] | None:
        """Every value, where they can be listed."""
        if isinstance(self.domain, Int):
            lo, hi = self.domain.int
            return range(lo, hi + 1, self.domain.step)
        return self.values if isinstance(self.domain, Choice) else None


@dataclass(frozen=True, slots=True)
class Search:
    """What a sweep asked for, with the axes of its space; `base` is the base with its defaults written out."""

    spec: SweepSpec
    base: dict[str, Any]
    axes: tuple[Axis, ...]

    @property
    def total(self) -> int:
        """How many trials there will be: no more than the space has points, where they can be counted."""
        grids = [axis.grid() for axis in self.axes]
        points = math.prod(len(grid) for grid in grids if grid is not None)
        if self.spec.strategy == "grid":
            return points
        return self.spec.max_jobs if None in grids else min(points, self.spec.max_jobs)

    def spec_of(self, params: Params) -> JobSpec:
        """The base with these values. `Refused` where they do not go together."""
        document = deepcopy(self.base)
        for axis in self.axes:
            put(document, axis.steps, params[axis.path])
        return _spec(document)

    def params_of(self, spec: Mapping[str, Any]) -> Params:
        """What a job of this sweep tries, read back from its spec."""
        found = {axis.path: look(spec, axis.steps) for axis in self.axes}
        return {axis.path: int(found[axis.path]) if isinstance(axis.domain, Int) else found[axis.path] for axis in self.axes}

    def points(self) -> Iterator[Params]:
        """Every point of a grid, the last axis fastest."""
        grids = [(axis.path, axis.grid() or ()) for axis in self.axes]
        for ordinal in range(math.prod(len(grid) for _, grid in grids)):
            # Counted, not listed: a whole number may have more values than fit in memory.
            places, left = [], ordinal
            for _, grid in reversed(grids):
                left, place = divmod(left, len(grid))
                places.append(place)
            yield {path: grid[place] for (path, grid), place in zip(grids, reversed(places), strict=True)}


def search_of(spec: SweepSpec) -> tuple[Search, list[Finding]]:
    """The search that a sweep asks for, and all that is wrong with its space, by pointers into the sweep's own body."""
    base = spec.base.model_dump(mode="json")
    axes: list[Axis] = []
    wrong: list[Finding] = []
    for path, domain in spec.space.items():
        steps = _steps(path)
        reason = _unfit(base, steps, [axis.steps for axis in axes])
        if reason:
            wrong.append(Finding(_at(path), "invalid_input", *reason))
            continue
        values, found = _tried(base, path, steps, domain)
        wrong += found
        axis = Axis(path, steps, domain, values)
        if spec.strategy == "grid" and axis.grid() is None:
            wrong.append(
                Finding(_at(path), "invalid_input", "a grid needs values that can be listed", "choice, or int; or another strategy")
            )
        axes.append(axis)
    search = Search(spec, base, tuple(axes))
    if not wrong and search.total > spec.max_jobs:
        hint = f"at least {search.total}, fewer values, or the strategy random"
        wrong.append(Finding("/max_jobs", "invalid_input", f"the grid has {search.total} points, and max_jobs is {spec.max_jobs}", hint))
    return search, wrong


def look(document: Any, steps: Sequence[str]) -> Any:
    """What stands at a place; KeyError with the step that leads nowhere."""
    for step in steps:
        if isinstance(document, Mapping) and step in document:
            document = document[step]
        elif isinstance(document, Sequence) and not isinstance(document, str) and step in map(str, range(len(document))):
            document = document[int(step)]
        else:
            raise KeyError(step)
    return document


def put(document: Any, steps: Sequence[str], value: Any) -> None:
    """Set what stands at a place that is there."""
    *above, last = steps
    holder = look(document, above)
    holder[int(last) if isinstance(holder, list) else last] = deepcopy(value)


def _steps(path: str) -> tuple[str, ...]:
    if path.startswith("/"):
        return tuple(part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/"))
    return tuple(path.split("."))


def _at(path: str, *below: str | int) -> str:
    return "/space/" + "/".join((path.replace("~", "~0").replace("/", "~1"), *map(str, below)))


def _unfit(base: Mapping[str, Any], steps: tuple[str, ...], others: Sequence[tuple[str, ...]]) -> tuple[str, str] | None:
    """Why a place cannot be varied and what to try, None where it can."""
    try:
        look(base, steps)
    except KeyError as lost:
        held = "a field of the base, as GET /v1/jobs/{id} shows it in `spec`: methods.0.temperature, recipe.optimizer.lr"
        return f"there is nothing at this path of the base: it ends at {lost.args[0]!r}", held
    for apart, why in _APART.items():
        shared = min(len(apart), len(steps))
        if apart[:shared] == steps[:shared]:
            return f"{'.'.join(apart)} cannot be searched over: {why}", "set it in the base"
    for other in others:
        shared = min(len(other), len(steps))
        if other[:shared] == steps[:shared]:
            return f"{'.'.join(other)} is searched over already, and one of the two lies within the other", "leave one of them out"
    return None


def _tried(
    base: dict[str, Any], path: str, steps: tuple[str, ...], domain: Choice | Uniform | Log | Int
) -> tuple[tuple[Any, ...], list[Finding]]:
    """The values that a job's schema makes of the ends of a domain, or of all of a choice, each alone on the base; and those it refuses."""
    kind = _kind(domain)
    given: Sequence[Any] = getattr(domain, kind)
    taken, wrong = [], []
    for ordinal, value in enumerate(given):
        try:
            taken.append(_set(base, steps, value))
        except Refused as refused:
            wrong.append(Finding(_at(path, kind, ordinal), "invalid_input", refused.reason, refused.hint))
    if not wrong and isinstance(domain, (Uniform, Log)):
        try:  # a field of whole numbers takes 16.0, and nothing of what lies between
            _set(base, steps, given[0] + (given[1] - given[0]) / math.pi)
        except Refused as refused:
            wrong.append(Finding(_at(path, kind), "invalid_input", refused.reason, "int or choice, for a field of whole numbers"))
    if isinstance(domain, Choice):
        texts = [json.dumps(value, sort_keys=True) for value in taken]
        if len(set(texts)) < len(texts):
            wrong.append(Finding(_at(path, kind), "invalid_input", "two of the choices mean the same", "each once"))
    return tuple(taken) if isinstance(domain, Choice) else (), wrong


def _set(base: dict[str, Any], steps: tuple[str, ...], value: Any) -> Any:
    """What a job's schema makes of a value alone on the base. `Refused` where it refuses that, or what stands beside it then."""
    document = deepcopy(base)
    put(document, steps, value)
    whole = ".".join(steps[:-1])
    try:
        return look(_spec(document).model_dump(mode="json"), steps)
    except KeyError as lost:
        # What says as much as nothing is left out of a spec, such as the initialiser `default`.
        raise Refused("", f"with this the base has no such field: its path ends at {lost.args[0]!r}", hint=f"vary {whole} whole") from None
    except Refused as refused:
        if not whole or f"{refused.where}/".startswith("/" + "/".join(steps) + "/"):
            raise
        reason = f"with this, what the base has at {refused.where} does not fit: {refused.reason}"
        raise Refused(refused.where, reason, hint=f"vary {whole} whole, by choice") from refused


def _spec(document: dict[str, Any]) -> JobSpec:
    try:
        return JobSpec.model_validate(document)
    except ValidationError as wrong:
        first, *_ = findings([{**each, "loc": ("body", *each["loc"])} for each in wrong.errors()], document, JobSpec)
        raise Refused(first.pointer, first.detail, hint=first.hint) from wrong
