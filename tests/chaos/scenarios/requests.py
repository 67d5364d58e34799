"""The API dies in the middle of a request: A1 of a submit, A2 of an upload."""

import hashlib
import random
import threading
import time
from collections.abc import Iterable, Iterator

import httpx
import sqlalchemy as sa

from db.blobs import BATCH
from db.garbage import sweep
from db.places import CHUNK
from db.tables import blob
from tests.chaos.api import Api, api
from tests.chaos.catalogue import Times, scenario
from tests.chaos.lab import Lab, until

_BYTES = BATCH + CHUNK + 100


@scenario("A1")
def the_api_dies_at_a_submit(lab: Lab, n: int, draw: random.Random, times: Times) -> None:
    """SIGKILL of the API between commit and ring, between ring and reply, or at a random moment; the client asks again with its key."""
    points = ("api.after_commit", "api.before_reply", None)
    with api(lab, crash=points[0]) as door:
        lab.have(1)
        for i in range(n):
            body = door.body(f"a1-{lab.number('key')}")
            sending = threading.Thread(target=door.submit, args=(body,))
            sending.start()
            if point := points[i % 3]:
                lab.crashed(door.process, point)
            else:
                time.sleep(draw.uniform(0, 0.05))
                door.kill()
            sending.join()
            after = points[(i + 1) % 3]
            with times.measure("the API's death to its next answer"):
                door.start(crash=after and f"{after}:2")  # the first passage is the same request again
                door.insist(body)


@scenario("A2")
def the_api_dies_at_an_upload(lab: Lab, n: int, draw: random.Random, times: Times) -> None:
    """SIGKILL of the API in the middle of an upload or before it counts, other bytes than were declared, and too few: never complete."""
    with api(lab) as door:
        for i in range(n):
            data = draw.randbytes(_BYTES)
            id = _declare(door, data)
            point = ("upload.middle", "upload.before_ready")[i % 2]
            lab.end(door.process)
            process = door.start(crash=point)
            _send(door, id, [data])
            lab.crashed(process, point)
            door.start()
            assert _status(door, id) == "pending", f"the upload {id} is {_status(door, id)} without its end"
            for wrong, what in (([data[:-1] + b"x"], "other bytes"), (_cut(data), "too few bytes")):
                lab.log.write(what, id)
                _send(door, id, wrong)
                assert _status(door, id) == "pending", f"the upload {id} is {_status(door, id)} after {what}"
            with times.measure("an upload again"):
                until(lambda id=id, data=data: _send(door, id, [data]))  # type: ignore[misc]  # refused while the cut one is still read
            assert _status(door, id) == "completed", f"the upload {id} is {_status(door, id)}"
    sweep(lab.database, older=0)
    until(lambda: _unnamed(lab) == 0)
    lab.train()


def _declare(door: Api, data: bytes) -> str:
    declared = {"purpose": "student", "filename": "f", "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    id: str = door.http.post("/v1/uploads", json=declared).raise_for_status().json()["id"]
    return id


def _send(door: Api, id: str, data: Iterable[bytes]) -> bool:
    """Whether the API took them."""
    try:
        return door.http.put(f"/v1/uploads/{id}/content", content=data, headers={"Content-Length": str(_BYTES)}).is_success
    except (httpx.TransportError, InterruptedError):
        return False


def _cut(data: bytes) -> Iterator[bytes]:
    """A sender that is cut off."""
    yield data[:CHUNK]
    raise InterruptedError


def _status(door: Api, id: str) -> str:
    status: str = door.http.get(f"/v1/uploads/{id}").raise_for_status().json()["status"]
    return status


def _unnamed(lab: Lab) -> int:
    with lab.database.read() as tx:
        return tx.execute(sa.select(sa.func.count()).select_from(blob).where(blob.c.sha256.is_(None))).scalar_one()
