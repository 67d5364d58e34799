"""The API's settings, each an environment variable that begins with RETORT_."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 1 << 20
GIB = 1 << 30


class Settings(BaseSettings):
    """What an operator may choose; sizes are bytes, times are seconds."""

    model_config = SettingsConfigDict(env_prefix="RETORT_", frozen=True)

    database_url: str = Field(description="sqlite:////folder/retort.db, or postgresql://user:password@host:port/database")
    broker_url: str = Field(description="filesystem:///folder, or redis://host:port/0")
    data: Path = Field(Path("retort-data"), description="the folder of this process; /readyz writes there and watches its free space")
    blobs: Path | None = Field(
        None,
        description="the folder of large blobs (uploads, datasets), the same for the API and the workers; none: they are in the database",
    )
    parent: int | None = Field(None, description="end together with this process")

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    request_threads: int = Field(24, ge=4, description="threads for requests; uploads and live streams have their own")
    shutdown: int = Field(10, ge=0, description="how long running requests may go on after SIGTERM")

    max_body: int = Field(MIB, description="of a JSON body")
    max_depth: int = Field(20, description="of a JSON body")
    max_upload: int = Field(8 * GIB, ge=1)
    max_uploads: int = Field(8, ge=1, description="uploads that may be on their way at once")
    upload_beat: float = Field(
        5.0, gt=0, description="between two signs of life of an upload; one that gave none for four times as long has no sender any more"
    )
    upload_idle: float = Field(60.0, gt=0, description="an upload whose sender is silent for so long is given up")
    convert: Literal["off", "isolated", "anyway"] = Field("off", description="whether .pt files are taken in; as the workers have it")
    max_queued: int = Field(1000, ge=1, description="queued jobs of one tenant")
    max_sweeps: int = Field(16, ge=1, description="running sweeps of one tenant")
    sweep_seconds: float = Field(2.0, gt=0, description="between two looks at the running sweeps")
    min_free: int = Field(256 * MIB, description="below it nothing is taken in, and /readyz fails")

    stream_poll: float = Field(0.5, gt=0, description="how often a live stream looks into the database")
    stream_ping: float = Field(15.0, gt=0, description="how often a silent stream says that it lives")
    max_streams: int = Field(64, ge=1, description="live streams of one tenant in this process")

    worker_living: float = Field(45.0, gt=0, description="a worker whose last heartbeat is older counts as gone")
    wake_timeout: float = Field(2.0, gt=0, description="the longest that ringing the workers' doorbell may take")
