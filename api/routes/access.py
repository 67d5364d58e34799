"""Who may ask: the caller, and the API keys of its tenant."""

from datetime import datetime
from typing import Literal

from fastapi import APIRouter, status
from pydantic import BaseModel, ConfigDict, Field

from api.auth import Caller
from api.deps import Id, Running
from api.problems import not_found
from api.shapes import Listing, when
from db import access

router = APIRouter(prefix="/v1", tags=["access"])


class Me(BaseModel):
    """The caller."""

    object: Literal["tenant"] = "tenant"
    id: str
    max_queued: int
    max_upload: int


class KeyRequest(BaseModel):
    """A key to be made."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=64, description="what the key is for")


class NewKey(BaseModel):
    """A new key; `key` is shown this once and stored only as a hash."""

    object: Literal["api_key"] = "api_key"
    name: str
    key: str


class KeyCard(BaseModel):
    """A key, without its secret."""

    object: Literal["api_key"] = "api_key"
    id: str
    name: str
    created_at: datetime
    last_used_at: datetime | None
    handle: str = Field(description="the part of the key that is not secret: rt_<handle>_…")


@router.get("/me", summary="Who am I")
def me(running: Running, caller: Caller) -> Me:
    """The tenant that the key belongs to, and what it may do."""
    return Me(id=caller.id, max_queued=running.settings.max_queued, max_upload=running.settings.max_upload)


@router.post("/api_keys", status_code=status.HTTP_201_CREATED, summary="Make an API key")
def create(running: Running, caller: Caller, body: KeyRequest) -> NewKey:
    """A further key of the caller's tenant. It is shown this once."""
    return NewKey(name=body.name, key=access.create_key(running.database, caller, name=body.name))


@router.get("/api_keys", summary="List the API keys")
def list_keys(running: Running, caller: Caller) -> Listing[KeyCard]:
    """The keys of the caller's tenant, without their secrets."""
    return Listing(
        data=[
            KeyCard(
                id=key.id,
                name=key.name,
                created_at=when(key.created_at),
                last_used_at=None if key.last_used_at is None else when(key.last_used_at),
                handle=key.handle,
            )
            for key in access.list_keys(running.database, caller)
        ]
    )


@router.delete("/api_keys/{id}", status_code=status.HTTP_204_NO_CONTENT, summary="Revoke an API key")
def revoke(running: Running, caller: Caller, id: Id) -> None:
    """The key stops working at once. Jobs that were submitted with it go on."""
    if not access.revoke_key(running.database, caller, id):
        raise not_found("API key", id)
