"""What this service can do: its methods, its presets, its families of networks, and the workers that are there."""

import inspect
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from api.auth import Caller
from api.deps import Name, Running
from api.findings import nearest
from api.problems import Problem
from api.shapes import Listing, when
from core.method import Method
from core.methods import catalogue
from core.networks import Family, families
from core.pages import docs_of, page
from core.presets import presets
from db import workers

router = APIRouter(prefix="/v1", tags=["catalogue"])

DIALECT = "https://json-schema.org/draft/2020-12/schema"


class MethodCard(BaseModel):
    """A way to teach."""

    name: str
    title: str
    reference: str
    docs: str = Field(description="the idea, the formula, when to use it, what it costs")
    page: str = Field(description="all of this for a person, as Markdown")
    needs_teacher: bool
    pairs_by: Literal["out", "pre"] | None = Field(
        description="which kind of /v1/pairs its pairs are made of where a job names none; null if it pairs no taps"
    )
    params_schema: dict[str, Any] = Field(description="JSON Schema 2020-12 of the object that stands in a job's `methods`")
    defaults: dict[str, Any]


class PresetCard(BaseModel):
    """Settings by name, such as those of a published row."""

    name: str
    note: str = Field(description="where the settings come from, and what they are for; its first sentence says what it is")
    networks: dict[Literal["teacher", "student"], dict[str, Any]] | None = Field(
        description="the architectures of the published row: to upload them, and no part of the spec"
    )
    published: dict[str, Any] | None = Field(description="the published figure and its source")
    spec: dict[str, Any] = Field(description="a job spec without the ids of the teacher, the student and the dataset")


class FamilyCard(BaseModel):
    """A family of networks that teachers and students may be of."""

    name: str
    title: str
    reference: str
    docs: str
    params_schema: dict[str, Any] = Field(description="JSON Schema 2020-12 of `architecture`")


class WorkerCard(BaseModel):
    """A worker that sent a heartbeat lately."""

    id: str
    host: str
    queues: list[str]
    device: str
    slots: int
    busy: int
    heartbeat_at: datetime
    calibration: dict[str, Any] | None = Field(description="what its device does in a second, measured when it started; null until it has")


class Capabilities(BaseModel):
    """What can be run now."""

    queues: list[str]
    devices: list[str]
    workers: list[WorkerCard]


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return {"$schema": DIALECT, **model.model_json_schema(mode="validation")}


def _method(name: str, method: type[Method]) -> MethodCard:
    docs = docs_of(method)
    defaults = {key: field.get_default(call_default_factory=True) for key, field in method.model_fields.items() if not field.is_required()}
    plain = method.model_construct(**{**defaults, "name": name}).model_dump(mode="json", include=set(defaults))
    return MethodCard(
        name=name,
        title=docs.title,
        reference=method.reference,
        docs=docs.text,
        page=page(name, method),
        needs_teacher=method.needs_teacher,
        pairs_by=method.pairs_by,
        params_schema=_schema(method),
        defaults=plain,
    )


def _family(name: str, family: type[Family]) -> FamilyCard:
    docs = inspect.cleandoc(family.__doc__ or "")
    title, _, _ = docs.partition("\n")
    return FamilyCard(name=name, title=title, reference=family.reference, docs=docs, params_schema=_schema(family))


METHODS = {name: _method(name, method) for name, method in sorted(catalogue().items())}
FAMILIES = [_family(name, family) for name, family in sorted(families().items())]


@router.get("/methods", summary="List the methods")
def list_methods(caller: Caller) -> Listing[MethodCard]:
    """Every way to teach, with its parameters as a JSON Schema."""
    return Listing(data=list(METHODS.values()))


@router.get("/methods/{name}", summary="Get a method")
def get_method(caller: Caller, name: Name) -> MethodCard:
    """One way to teach: its idea, its formula, its parameters and their defaults."""
    if name not in METHODS:
        raise Problem(404, f"there is no method {name}", hint=nearest(name, METHODS))
    return METHODS[name]


@router.get("/presets", summary="List the presets")
def list_presets(caller: Caller) -> Listing[PresetCard]:
    """Whole job specs, such as published rows: fill in the ids and submit one."""
    return Listing(data=[preset_card(name, fields) for name, fields in presets().items()])


@router.get("/presets/{name}", summary="Get a preset")
def get_preset(caller: Caller, name: Name) -> PresetCard:
    """One whole job spec without the ids of teacher, student and dataset, and where its settings come from."""
    if name not in presets():
        raise Problem(404, f"there is no preset {name}", hint=nearest(name, presets()))
    return preset_card(name, presets()[name])


def preset_card(name: str, fields: Mapping[str, Any]) -> PresetCard:
    """A preset as the API tells it: what is said about it, and apart from that the spec."""
    about = {field: fields.get(field) for field in ("note", "networks", "published")}
    return PresetCard(name=name, **about, spec={field: value for field, value in fields.items() if field not in about})


@router.get("/architectures/catalog", summary="List the families of networks", tags=["architectures"])
def list_families(caller: Caller) -> Listing[FamilyCard]:
    """Every family that an `architecture` may be of, with its hyper-parameters as a JSON Schema."""
    return Listing(data=FAMILIES)


@router.get("/capabilities", summary="What can be run now")
def capabilities(running: Running, caller: Caller) -> Capabilities:
    """The workers that sent a heartbeat lately, and what they take."""
    living = workers.living(running.database, within=running.settings.worker_living)
    return Capabilities(
        queues=sorted({queue for worker in living for queue in worker.queues}),
        devices=sorted({worker.device for worker in living}),
        workers=[
            WorkerCard(
                id=worker.id,
                host=worker.host,
                queues=list(worker.queues),
                device=worker.device,
                slots=worker.slots,
                busy=worker.busy,
                heartbeat_at=when(worker.seen_at),
                calibration=dict(worker.calibration) if worker.calibration else None,
            )
            for worker in living
        ],
    )
