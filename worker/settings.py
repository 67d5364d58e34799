"""The worker's settings, each an environment variable that begins with RETORT_."""

import os
import sys
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

MIB = 1 << 20
GIB = 1 << 30


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


class Settings(BaseSettings):
    """What an operator may choose; sizes are bytes, times are seconds. Tests run every time some thirty times faster."""

    model_config = SettingsConfigDict(env_prefix="RETORT_", frozen=True)

    database_url: str = Field(description="sqlite:////folder/retort.db, or postgresql://user:password@host:port/database")
    broker_url: str = Field(description="filesystem:///folder, or redis://host:port/0")
    data: Path = Field(Path("retort-data"), description="the folder for job folders and the cache of blobs")
    blobs: Path | None = Field(
        None,
        description="the folder of large blobs (uploads, datasets), the same for the API and the workers; none: they are in the database",
    )
    parent: int | None = Field(None, description="end together with this process")

    queues: Annotated[tuple[Literal["cpu", "gpu"], ...], NoDecode] = Field(("cpu",), min_length=1, description="comma-separated")
    slots: int = Field(1, ge=1, description="jobs at the same time; on a GPU machine one a GPU")
    threads: int = Field(0, ge=0, description="threads of one job; 0: the cores of this machine, shared between the slots")
    device: Literal["cpu", "cuda"] = "cpu"
    memory: int | None = Field(None, ge=64 * MIB, description="private memory of one child; none: no limit")
    nice: int = Field(5, ge=0, le=19, description="how far a child steps back behind the rest of the machine")
    cache: int = Field(20 * GIB, ge=0, description="what the cache of blobs may hold")
    convert: Literal["off", "isolated", "anyway"] = Field(
        "off", description="open PyTorch checkpoints: never, in an isolated child, or where a child cannot be isolated too"
    )
    child: tuple[str, ...] = Field((sys.executable, "-I", "-m", "core"), description="the command that becomes a child")

    calibrate: bool = Field(True, description="measure the device once when the worker starts, so that a dry run can foresee times")

    lease: float = Field(60, gt=0, description="how long a claim is valid after its last renewal")
    renew: float = Field(10, gt=0, description="between two renewals of a lease, and between two heartbeats of the worker")
    wish: float = Field(2, gt=0, description="between two looks at what the user wants")
    reap: float = Field(10, gt=0, description="between two looks for jobs whose lease ran out")
    reconcile: float = Field(10, gt=0, description="between two looks for jobs that nobody rang for")
    stale: float = Field(30, gt=0, description="a ring older than this is taken for lost")
    poll: float = Field(15, gt=0, description="between two claims that an idle worker tries without being rung for, +-a third")
    deaf: float = Field(90, gt=0, description="an idle worker that hears none of its own rings for so long ends with code 70")
    queue_ttl: float = Field(30 * 86400, gt=0, description="a job that waits longer fails")

    flush: float = Field(1, gt=0, description="the longest that a point waits before it is written")
    checkpoint: float = Field(60, gt=0, description="between two checkpoints")
    report: float = Field(0.5, gt=0, description="between two points of a curve")

    storage_patience: float = Field(1800, ge=0, description="how long a job goes on while no checkpoint of it finds room")
    storage_pause: float = Field(60, gt=0, description="the longest between two tries to write where there was no room")
    min_free: int = Field(2 * GIB, ge=0, description="jobs that found no room go on when their disk has so much, or a twentieth of it")
    checkpoints_kept: float = Field(7 * 86400, ge=0, description="how long the checkpoints of a job that ended are kept, for a retry")

    silence: float = Field(
        600, gt=0, description="a child that tells nothing for so long, and for 20 times as long as it mostly does, is stalled"
    )
    outage: float = Field(1800, ge=0, description="how long a child goes on while the database cannot be reached")
    grace: float = Field(8, gt=0, description="from the command to stop until SIGTERM; SIGKILL follows after half as long again")
    cancel_grace: float = Field(0.6, gt=0, description="the same for a cancelled job, which has nothing to save")
    backoff: float = Field(
        10, ge=0, description="the pause before the second retry; the first is at once, the next are 6 and 30 times as long"
    )
    max_crashes: int = Field(3, ge=1, description="deaths without a newer checkpoint between them, then quarantine")

    @field_validator("queues", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("data", "blobs")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return value and value.absolute()

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.renew * 2 > self.lease:
            raise ValueError("renew must be at most half of lease, or one slow renewal loses the job")
        if self.wish > self.renew:
            raise ValueError("wish must be at most renew: every renewal reads the wish anyway")
        if self.cancel_grace > self.grace:
            raise ValueError("cancel_grace must be at most grace: a cancelled job has less to save")
        if self.flush > self.lease or self.report > self.silence:
            raise ValueError("flush must be at most lease, and report at most silence: a job that works must be seen to")
        return self

    @property
    def threads_per_job(self) -> int:
        """Threads per job times slots never exceed the cores of this machine, unless somebody chose so."""
        return self.threads or max(1, _cores() // self.slots)
