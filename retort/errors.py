"""What can go wrong for someone who uses the service, as one tree.

RetortError
├── ApiError      the service answered, and refused: mirrors its problem+json
├── Unreachable   no answer: nothing listens there, the line broke, or no service is known
├── Rejected      an uploaded teacher, architecture or dataset did not pass its inspection
├── Corrupted     downloaded bytes are not what their digest says
├── TookTooLong   a wait reached the timeout that its caller set
└── Misused       the command was told something that it cannot do: a wrong file, a wrong combination of options
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


class RetortError(Exception):
    """The root of every error that this package raises on purpose."""

    hint: str = ""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One wrong field of a request; `pointer` is a JSON pointer into the body that was sent."""

    pointer: str
    detail: str
    code: str = ""
    hint: str = ""


class ApiError(RetortError):
    """The service refused. `status` is the HTTP status, `code` the service's own word, `fault` "user" or "system"."""

    def __init__(
        self,
        *,
        status: int,
        code: str = "",
        title: str = "",
        detail: str = "",
        hint: str = "",
        fault: str = "",
        errors: Sequence[FieldError] = (),
        request_id: str = "",
    ) -> None:
        super().__init__(detail or title or f"the service answered {status}")
        self.status = status
        self.code = code
        self.title = title
        self.detail = detail
        self.hint = hint
        self.fault = fault or ("user" if status < 500 else "system")
        self.errors = tuple(errors)
        self.request_id = request_id

    @classmethod
    def of(cls, status: int, problem: Mapping[str, Any]) -> "ApiError":
        """The error that a problem+json document describes; unknown members are left aside."""
        listed = problem.get("errors")
        errors = [
            FieldError(**{name: str(each.get(name) or "") for name in ("pointer", "detail", "code", "hint")})
            for each in (listed if isinstance(listed, list) else [])
            if isinstance(each, dict)
        ]
        words = {name: str(problem.get(name) or "") for name in ("code", "title", "detail", "hint", "fault", "request_id")}
        return cls(status=status, errors=errors, **words)

    def document(self) -> dict[str, Any]:
        """The error as JSON, for `--json`."""
        errors = [asdict(each) for each in self.errors]
        words = {"code": self.code, "title": self.title, "detail": str(self), "hint": self.hint, "fault": self.fault}
        return {"status": self.status, **words, "errors": errors, "request_id": self.request_id}


class Unreachable(RetortError):
    """The service did not answer at `url`; `url` is empty where no service is known at all."""

    def __init__(self, message: str, *, url: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.url = url
        self.hint = hint


class Rejected(RetortError):
    """An asset that its inspection rejected: `where` is a JSON pointer, `reason` and `hint` are for a person."""

    def __init__(self, message: str, *, asset: str, where: str = "", reason: str = "", code: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.asset = asset
        self.where = where
        self.reason = reason
        self.code = code
        self.hint = hint


class Corrupted(RetortError):
    """Downloaded bytes with another digest than the service named; nothing was left under the final name."""


class TookTooLong(RetortError):
    """What was waited for did not happen within the timeout; it goes on all the same."""


class Misused(RetortError):
    """The command cannot do what it was told."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
