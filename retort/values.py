"""What the service answers, as frozen values: an upload, an asset, an artifact, an export, an event."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """Bytes on their way into the service, or there; `status` is "pending", "completed" or "cancelled"."""

    id: str
    purpose: str
    filename: str
    bytes: int
    sha256: str
    offset: int
    status: str
    raw: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, raw: Json) -> "Upload":
        """The upload of an answer."""
        names = ("id", "purpose", "filename", "bytes", "sha256", "offset", "status")
        return cls(raw=raw, **{name: raw[name] for name in names})


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """A teacher, an architecture or a dataset; `status` is "processing", "ready" or "rejected" (then `problem` says why)."""

    id: str
    kind: str
    name: str
    status: str
    problem: Mapping[str, Any] | None
    report: Mapping[str, Any] | None
    raw: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, raw: Json) -> "Asset":
        """The asset of an answer."""
        return cls(
            id=raw["id"],
            kind=raw["object"],
            name=raw["name"],
            status=raw["status"],
            problem=raw.get("problem"),
            report=raw.get("report"),
            raw=raw,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One file that a job made; `sha256` is what its bytes must hash to."""

    id: str
    name: str
    format: str
    bytes: int
    sha256: str
    raw: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, raw: Json) -> "Artifact":
        """The artifact of an answer."""
        return cls(raw=raw, **{name: raw[name] for name in ("id", "name", "format", "bytes", "sha256")})

    @property
    def path(self) -> str | None:
        """Where it lies among the job's other files: two formats may have files of one name. None for the checksums of one format alone,
        for which those of all files stand.
        """
        path: str | None = self.raw.get("path", self.name)
        return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """A format of a student; `status` is "processing", "ready" or "rejected" (then `reason` says why). `facts` are the figures of its
    comparison with the student, `job` is the id of the job that made it or tried.
    """

    format: str
    status: str
    reason: str | None
    facts: Mapping[str, Any]
    job: str
    raw: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, raw: Json) -> "Export":
        """The export of an answer."""
        return cls(raw=raw, **{name: raw[name] for name in ("format", "status", "reason", "facts", "job")})


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One entry of a job's history; `id` counts without gaps, `kind` is a name like "job.metric", `at` a time or empty."""

    id: int
    kind: str
    at: str
    data: Mapping[str, Any]

    @classmethod
    def of(cls, raw: Json) -> "Event":
        """The event of an answer."""
        return cls(id=int(raw["id"]), kind=str(raw["event"]), at=str(raw.get("at") or ""), data=raw.get("data") or {})
