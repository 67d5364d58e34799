"""Suggested pairs: which places of a teacher and of a student a method compares where a job names none."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query

from api import named
from api.auth import Caller
from api.deps import ID, Running
from api.shapes import PairCard, Pairs, Suggestion, TapCard
from core.anatomy import Anatomy, match
from core.errors import Refused
from core.methods import catalogue

router = APIRouter(prefix="/v1", tags=["pairs"])

Kind = Literal["out", "pre"]


def suggest(kind: Kind, teacher: Anatomy, student: Anatomy) -> Suggestion:
    """The default pairs of one kind; where there are none, the reason stands in their place."""
    methods = [name for name, method in catalogue().items() if method.pairs_by == kind]
    try:
        pairs = match(teacher, student, kind)
    except Refused as refused:
        return Suggestion(kind=kind, methods=methods, pairs=[], reason=refused.reason, hint=refused.hint)
    cards = [PairCard(teacher=_tap(teacher, pair.teacher), student=_tap(student, pair.student)) for pair in pairs]
    return Suggestion(kind=kind, methods=methods, pairs=cards, reason=None, hint=None)


def _tap(network: Anatomy, tap: str) -> TapCard:
    return TapCard(tap=tap, shape=list(network.taps[tap]))


@router.get("/pairs", summary="Suggest pairs of taps")
def suggest_pairs(
    running: Running,
    caller: Caller,
    teacher: Annotated[str, Query(pattern=ID, description="the id of a teacher, or of a finished job")],
    architecture: Annotated[str, Query(pattern=ID, description="the id of the student's architecture")],
) -> Pairs:
    """What methods on features compare by default in these two networks. A job may name other pairs: `pairs` of its method."""
    # The request has no body, so a finding points nowhere in it: its words name the asset.
    networks = named.teacher(running, caller, teacher, "").anatomy, named.architecture(running, caller, architecture, "").anatomy
    return Pairs(data=[suggest("out", *networks), suggest("pre", *networks)])
