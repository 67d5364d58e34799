"""Every error that a user can meet, as application/problem+json (RFC 9457): what is wrong, where, whose fault it is, what to try."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from api.findings import Finding, findings
from core.errors import Refusals, Refused
from db.session import Full, Unavailable

log = logging.getLogger(__name__)

TITLES: Mapping[int, tuple[str, str]] = {
    400: ("bad_request", "The request cannot be read"),
    401: ("unauthenticated", "An API key is needed"),
    404: ("not_found", "Not found"),
    405: ("method_not_allowed", "This address does not take that method"),
    408: ("timeout", "The sender fell silent"),
    409: ("conflict", "Not possible in this state"),
    411: ("length_required", "The length must be declared"),
    413: ("too_large", "Too large"),
    415: ("unsupported_media_type", "This media type is not taken here"),
    416: ("range_not_satisfiable", "There is nothing at this range"),
    422: ("invalid_input", "The request cannot be carried out as it was made"),
    423: ("locked", "In use by another request"),
    429: ("too_many", "Too many at once"),
    500: ("internal_error", "Retort failed"),
    503: ("unavailable", "A part of the service cannot be reached"),
    507: ("storage_full", "No room left"),
}
_KEY = re.compile(r'"?[\x20-\x21\x23-\x7e]{1,255}"?')
RETRYABLE = frozenset({408, 423, 429, 503, 507})


class Fault(BaseModel):
    """One thing that is wrong with a request."""

    pointer: str = Field(description="JSON pointer into the body; empty for the body as a whole")
    code: str
    detail: str
    hint: str = Field("", description="what to try; may be empty")


class ProblemBody(BaseModel):
    """An error, as RFC 9457 shapes it, with what Retort adds."""

    type: str = Field(examples=["urn:retort:problem:invalid_input"])
    title: str
    status: int
    detail: str
    instance: str = Field(description="the path that was asked for")
    code: str
    request_id: str
    retryable: bool = Field(description="whether the same request may succeed later")
    hint: str = Field(description="what to try; may be empty")
    fault: Literal["user", "system"]
    errors: list[Fault]


class Problem(Exception):
    """An answer that is an error; `more` holds further members of the body, such as `current_status`. A `type` of its own has what a
    standard names.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        code: str = "",
        hint: str = "",
        type: str = "",
        errors: Sequence[Finding] = (),
        headers: Mapping[str, str] | None = None,
        retryable: bool | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.code = code or TITLES[status][0]
        self.hint = hint
        self.type = type or f"urn:retort:problem:{self.code}"
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        self.retryable = status in RETRYABLE if retryable is None else retryable
        self.more = dict(more or {})
        if self.retryable:
            self.headers.setdefault("Retry-After", "2")


def not_found(what: str, id: str) -> Problem:
    """The same answer for what does not exist and for what belongs to someone else."""
    return Problem(404, f"there is no {what} {id}")


def plain_key(key: str | None) -> str | None:
    """An idempotency key without the quotes that its draft standard wants."""
    if key is None:
        return None
    if not _KEY.fullmatch(key) or not key.strip('"'):
        raise Problem(422, "the Idempotency-Key must be 1 to 255 printable characters", hint="a random UUID is a good one")
    return key.strip('"')


def refused(error: Refused) -> Problem:
    """A refusal of the engine, with every field it names."""
    found = [Finding(pointer=each.where, code=each.code, detail=each.reason, hint=each.hint) for each in error.all]
    return Problem(422, _told(found), code=error.code, hint=error.hint, errors=found)


def invalid(found: Sequence[Finding]) -> Problem:
    """A body or a query that does not fit, with all that is wrong with it."""
    return Problem(422, _told(found), hint=next((each.hint for each in found if each.hint), ""), errors=found)


def _told(found: Sequence[Finding]) -> str:
    return "; ".join(f"{each.pointer}: {each.detail}" if each.pointer else each.detail for each in found[:5])


class Problems:
    """Gathers what several looks at one request find, so that a person is told everything at once."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    @contextmanager
    def gather(self) -> Iterator[None]:
        """Keep a Problem of the block instead of letting it out."""
        try:
            yield
        except Problem as problem:
            self.found.append(problem)

    def check(self) -> None:
        """Raise all that was found as one Problem: one that passes by itself only where all of it does."""
        if not self.found:
            return
        worst = next((each for each in self.found if each.status == 422), None) or next(
            (each for each in self.found if not each.retryable), self.found[0]
        )
        if len(self.found) > 1:
            worst.detail, worst.errors = (
                "; ".join(each.detail for each in self.found),
                tuple(told for each in self.found for told in each.errors),
            )
        raise worst


@contextmanager
def beneath(place: str) -> Iterator[None]:
    """For a spec that stands at `place` of the body, or is to be mended there: what is wrong with the spec is named as a field of the body.

    A `Refused` stays one, a Problem of the request's fields too.
    """
    try:
        yield
    except Refused as refused:
        there = Refusals()
        for each in refused.all:
            there.add(each.at(f"{place}{each.where}"))
        there.check()
    except Problem as problem:
        found = tuple(replace(each, pointer=f"{place}{each.pointer}") for each in problem.errors)
        if problem.status == 422 and found:
            raise invalid(found) from problem
        problem.errors = found
        raise


def unavailable() -> Problem:
    """The database does not answer."""
    return Problem(
        503,
        "the database cannot be reached",
        hint="it may have been done or not; try again in a few seconds, a new job with the same Idempotency-Key",
        headers={"Retry-After": "5"},
    )


def storage_full(what: str) -> Problem:
    """There is no room for what would be written."""
    return Problem(
        507, f"there is no room: {what}", hint="nothing was changed; make room, or try again later", headers={"Retry-After": "60"}
    )


def response(problem: Problem, *, instance: str, request_id: str) -> JSONResponse:
    """The problem as it goes over the wire."""
    body = ProblemBody(
        type=problem.type,
        title=TITLES[problem.status][1],
        status=problem.status,
        detail=problem.detail,
        instance=instance,
        code=problem.code,
        request_id=request_id,
        retryable=problem.retryable,
        hint=problem.hint,
        fault="system" if problem.status >= 500 else "user",
        errors=[Fault(pointer=each.pointer, code=each.code, detail=each.detail, hint=each.hint) for each in problem.errors],
    )
    return JSONResponse(
        {**problem.more, **body.model_dump()}, problem.status, headers=problem.headers, media_type="application/problem+json"
    )


def from_http(error: HTTPException) -> Problem:
    """What the framework says by itself: an unknown address, a method it does not take, a body it cannot read."""
    status = error.status_code if error.status_code in TITLES else 400
    hint = "the addresses are listed at /docs" if status in {404, 405} else ""
    details = {404: "there is nothing at this address", 405: "this address does not take that method"}
    return Problem(status, details.get(status, str(error.detail)), hint=hint, headers=error.headers)


def _methods_at(app: FastAPI, request: Request) -> set[str]:
    """Every method that the address takes: the framework itself names those of one route only."""
    paths = {path: set(methods) for path, methods in app.openapi()["paths"].items()}
    parts = request.url.path.split("/")
    return {
        method.upper()
        for path, methods in paths.items()
        if len(path.split("/")) == len(parts) and all(a == b or a.startswith("{") for a, b in zip(path.split("/"), parts, strict=True))
        for method in methods
    }


def install(app: FastAPI) -> None:
    """Let every error of the application leave it as a problem."""

    def answer(request: Request, problem: Problem) -> JSONResponse:
        return response(problem, instance=request.url.path, request_id=request.state.request_id)

    async def of_problem(request: Request, error: Exception) -> JSONResponse:
        return answer(request, cast(Problem, error))

    async def of_refused(request: Request, error: Exception) -> JSONResponse:
        return answer(request, refused(cast(Refused, error)))

    async def of_validation(request: Request, error: Exception) -> JSONResponse:
        wrong = cast(RequestValidationError, error)
        if all(each["loc"][0] == "path" for each in wrong.errors()):
            return answer(request, Problem(404, "there is nothing at this address", hint="ids and names are as the service gave them"))
        field = getattr(request.scope.get("route"), "body_field", None)
        shape = field.field_info.annotation if field is not None else None
        return answer(request, invalid(findings(wrong.errors(), wrong.body, shape)))

    async def of_http(request: Request, error: Exception) -> JSONResponse:
        problem = from_http(cast(HTTPException, error))
        if problem.status == 405:
            problem.headers["Allow"] = ", ".join(sorted(_methods_at(app, request)))
        return answer(request, problem)

    async def of_unavailable(request: Request, error: Exception) -> JSONResponse:
        log.warning("the database cannot be reached: %s", error)
        return answer(request, unavailable())

    async def of_full(request: Request, error: Exception) -> JSONResponse:
        log.warning("the database is full: %s", error)
        return answer(request, storage_full("the database is full"))

    app.add_exception_handler(Problem, of_problem)
    app.add_exception_handler(Refused, of_refused)
    app.add_exception_handler(RequestValidationError, of_validation)
    app.add_exception_handler(HTTPException, of_http)
    app.add_exception_handler(Unavailable, of_unavailable)
    app.add_exception_handler(Full, of_full)
