"""The Python client: `Client(url, key=…)` with one attribute for each resource of the service."""

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from retort.connection import Connection
from retort.download import Progress, download
from retort.errors import Misused, Rejected, TookTooLong, Unreachable
from retort.job import Job
from retort.sweep import Sweep
from retort.upload import upload
from retort.values import Artifact, Asset, Json, Upload


class Client:
    """A service, by its address and a key; both default to the environment's RETORT_URL and RETORT_API_KEY.

    Errors: `ApiError` where the service refuses, `Unreachable` where nothing answers.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        key: str | None = None,
        transport: httpx.BaseTransport | None = None,
        timeout: float = 30.0,
        retries: int = 6,
    ) -> None:
        url = url or os.environ.get("RETORT_URL", "")
        if not url:
            raise Unreachable("no service is named", hint="give Client a url, or set RETORT_URL and RETORT_API_KEY")
        key = key if key is not None else os.environ.get("RETORT_API_KEY", "")
        self.connection = Connection(url, key=key, transport=transport, timeout=timeout, retries=retries)
        self.uploads = Uploads(self.connection)
        self.teachers = Assets(self.connection, "teachers")
        self.architectures = Assets(self.connection, "architectures")
        self.datasets = Assets(self.connection, "datasets")
        self.jobs = Jobs(self.connection)
        self.sweeps = Sweeps(self.connection)
        self.artifacts = Artifacts(self.connection)
        self.methods = Catalogue(self.connection, "methods")
        self.presets = Catalogue(self.connection, "presets")
        self.keys = Keys(self.connection)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give the sockets back."""
        self.connection.close()

    def upload(self, path: str | Path, *, purpose: str, progress: Progress | None = None) -> Upload:
        """Send a file in bounded memory, verified by its digest; `purpose` is "teacher", "dataset" or "student"."""
        return upload(self.connection, Path(path), purpose=purpose, progress=progress)

    def wait_ready(self, asset: Asset, *, timeout: float | None = None, interval: float = 0.3) -> Asset:
        """The asset once its inspection passed; `Rejected` with the reason where it did not, `TookTooLong` after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        kind = f"{asset.kind}s"
        while asset.status == "processing":
            if deadline is not None and time.monotonic() > deadline:
                raise TookTooLong(f"{asset.id} is still being inspected after {timeout:g} s; it goes on")
            time.sleep(interval)
            asset = Assets(self.connection, kind).get(asset.id)
        if asset.status == "rejected":
            problem = asset.problem or {}
            words = {name: str(problem.get(name) or "") for name in ("where", "reason", "code", "hint")}
            place = f" at {words['where']}" if words["where"] else ""
            raise Rejected(f"the {asset.kind} {asset.name!r} was rejected{place}: {words['reason']}", asset=asset.id, **words)
        return asset

    def pairs(self, teacher: str, architecture: str) -> Json:
        """Default pairs of taps of a teacher and a student's architecture, by their ids: for each kind the pairs with both shapes
        and the methods that take them, or the reason why there are none.
        """
        query = {"teacher": teacher, "architecture": architecture}
        answer: Json = self.connection.request("GET", "/v1/pairs", params=query)
        return answer

    def me(self) -> Json:
        """Whom the key belongs to."""
        return self._json("/v1/me")

    def capabilities(self) -> Json:
        """The workers that live, and what they can do."""
        return self._json("/v1/capabilities")

    def version(self) -> Json:
        """The version of the service."""
        return self._json("/version")

    def _json(self, path: str) -> Json:
        answer: Json = self.connection.request("GET", path)
        return answer


class Uploads:
    """Bytes that were sent, before they become an asset."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, id: str) -> Upload:
        """One upload."""
        return Upload.of(self._connection.request("GET", f"/v1/uploads/{id}"))

    def delete(self, id: str) -> None:
        """Forget an upload."""
        self._connection.request("DELETE", f"/v1/uploads/{id}")


class Assets:
    """Teachers, architectures or datasets."""

    def __init__(self, connection: Connection, kinds: str) -> None:
        self._connection = connection
        self._path = f"/v1/{kinds}"

    def create(self, name: str, **fields: Any) -> Asset:
        """A new asset, "processing" until a worker has inspected it: see `Client.wait_ready`. `fields` are those of the POST body."""
        return Asset.of(self._connection.act(self._path, {"name": name, **fields}))

    def get(self, id: str) -> Asset:
        """One asset."""
        return Asset.of(self._connection.request("GET", f"{self._path}/{id}"))

    def list(self, *, limit: int | None = None) -> Iterator[Asset]:
        """The newest first, up to `limit`, else all."""
        return (Asset.of(raw) for raw in self._connection.pages(self._path, limit=limit))

    def delete(self, id: str) -> None:
        """Remove an asset."""
        self._connection.request("DELETE", f"{self._path}/{id}")

    def taps(self, id: str) -> Json:
        """The places of the network that a method may look at, with their shapes."""
        answer: Json = self._connection.request("GET", f"{self._path}/{id}/taps")
        return answer


class Jobs:
    """Distillation jobs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create(self, spec: Mapping[str, Any]) -> Job:
        """Submit a job spec; sent again after a broken line, it still makes one job."""
        return Job.of(self._connection.act("/v1/jobs", dict(spec)), self._connection)

    def plan(self, spec: Mapping[str, Any]) -> Json:
        """What the service would do with this spec, without doing it: `plan`, `estimates`, `teacher`, `warnings`, `queue`; or `ApiError`,
        whose `errors` are all that is wrong."""
        answer: Json = self._connection.request("POST", "/v1/jobs", body=dict(spec), params={"dry_run": "true"}, repeatable=True)
        return answer

    def get(self, id: str) -> Job:
        """One job."""
        return Job.of(self._connection.request("GET", f"/v1/jobs/{id}"), self._connection)

    def list(self, *, status: str | None = None, limit: int | None = None) -> Iterator[Job]:
        """The newest first, up to `limit`, else all."""
        return (Job.of(raw, self._connection) for raw in self._connection.pages("/v1/jobs", limit=limit, status=status))


class Sweeps:
    """Searches over job specs, whose trials are jobs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create(self, spec: Mapping[str, Any]) -> Sweep:
        """Start a sweep: `base`, `space`, `strategy` and so on; sent again after a broken line, it still is one sweep."""
        return Sweep.of(self._connection.act("/v1/sweeps", dict(spec)), self._connection)

    def get(self, id: str) -> Sweep:
        """One sweep."""
        return Sweep.of(self._connection.request("GET", f"/v1/sweeps/{id}"), self._connection)

    def list(self, *, limit: int | None = None) -> Iterator[Sweep]:
        """The newest first, up to `limit`, else all; without their progress."""
        return (Sweep.of(raw, self._connection) for raw in self._connection.pages("/v1/sweeps", limit=limit))


class Artifacts:
    """Files that jobs made."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, id: str) -> Artifact:
        """One artifact."""
        return Artifact.of(self._connection.request("GET", f"/v1/artifacts/{id}"))

    def download(self, artifact: Artifact, folder: str | Path, *, progress: Progress | None = None) -> Path:
        """Fetch one file into `folder`, verified by its digest."""
        return download(self._connection, artifact, Path(folder), progress=progress)


class Catalogue:
    """What the service knows by name: methods with the schemas of their parameters, or presets with whole job specs."""

    def __init__(self, connection: Connection, kinds: str) -> None:
        self._connection = connection
        self._path = f"/v1/{kinds}"
        self._kind = kinds.removesuffix("s")

    def list(self) -> list[Json]:
        """All of them."""
        return list(self._connection.pages(self._path))

    def get(self, name: str) -> Json:
        """One of them; `Misused` with the names there are where there is none of this name."""
        known = {str(each["name"]): each for each in self.list()}
        if name not in known:
            raise Misused(
                f"there is no {self._kind} {name!r}", hint=f"there is {', '.join(sorted(known))}" if known else "there are none yet"
            )
        return known[name]


class Keys:
    """The API keys of the key's own tenant."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create(self, name: str) -> Json:
        """A new key; the answer alone ever holds it in full."""
        answer: Json = self._connection.request("POST", "/v1/api_keys", body={"name": name})
        return answer

    def list(self) -> list[Json]:
        """All keys, without their secrets."""
        return list(self._connection.pages("/v1/api_keys"))

    def revoke(self, id: str) -> None:
        """Make a key useless from now on."""
        self._connection.request("DELETE", f"/v1/api_keys/{id}")
