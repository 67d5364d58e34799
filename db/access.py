"""Who is asking: tenants, and the keys that name them. A tenant comes only from a key, and every other function wants one."""

import hashlib
import hmac
import secrets
from contextlib import suppress
from dataclasses import dataclass

import sqlalchemy as sa

from db.ids import base32, new_id
from db.session import Database, Full, clock, insert_or
from db.tables import api_key, tenant

_STAMP_EVERY = 60.0
_NOBODY = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class Tenant:
    """Somebody whose rows nobody else sees."""

    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key as it is listed; `handle` is the part of it that is not secret."""

    id: str
    handle: str
    name: str
    created_at: float
    last_used_at: float | None


def create_tenant(db: Database, name: str) -> Tenant:
    """The tenant of this name, made if there is none."""
    with db.begin() as tx:
        new = insert_or(tx, tenant).values(id=new_id("ten"), name=name, created_at=clock())
        tx.execute(new.on_conflict_do_nothing(index_elements=["name"]))
        return Tenant(tx.execute(sa.select(tenant.c.id).where(tenant.c.name == name)).scalar_one())


def find_tenant(db: Database, name: str) -> Tenant | None:
    """The tenant of this name."""
    with db.read() as tx:
        id = tx.execute(sa.select(tenant.c.id).where(tenant.c.name == name)).scalar_one_or_none()
    return Tenant(id) if id else None


def create_key(db: Database, owner: Tenant, *, name: str) -> str:
    """A new key, `rt_<8>_<43>`: shown this once, kept as a hash. A fast hash is right for a secret of 256 random bits."""
    handle, secret = base32(secrets.randbits(40), digits=8), secrets.token_urlsafe(32)
    with db.begin() as tx:
        tx.execute(
            sa.insert(api_key).values(
                id=new_id("key"), tenant_id=owner.id, handle=handle, secret_sha=_hash(secret), name=name, created_at=clock()
            )
        )
    return f"rt_{handle}_{secret}"


def authenticate(db: Database, key: str) -> Tenant | None:
    """The tenant of a key that is not revoked; when it was last used is noted once a minute at most."""
    prefix, _, rest = key.partition("_")
    handle, _, secret = rest.partition("_")
    with db.read() as tx:
        found = tx.execute(
            sa.select(
                api_key.c.id, api_key.c.tenant_id, api_key.c.secret_sha, (api_key.c.last_used_at > clock() - _STAMP_EVERY).label("fresh")
            ).where(api_key.c.handle == _storable(handle), api_key.c.revoked_at.is_(None))
        ).one_or_none()
    right = hmac.compare_digest(_hash(secret), found.secret_sha if found else _NOBODY)  # compared also for nobody: the time tells nothing
    if found is None or not right or prefix != "rt":
        return None
    if not found.fresh:
        with suppress(Full), db.begin() as tx:  # a courtesy: who may read can read while nothing can be written
            tx.execute(sa.update(api_key).where(api_key.c.id == found.id).values(last_used_at=clock()))
    return Tenant(found.tenant_id)


def list_keys(db: Database, owner: Tenant) -> list[ApiKey]:
    """The keys of a tenant that still open the door, oldest first."""
    columns = (api_key.c.id, api_key.c.handle, api_key.c.name, api_key.c.created_at, api_key.c.last_used_at)
    with db.read() as tx:
        own = sa.select(*columns).where(api_key.c.tenant_id == owner.id, api_key.c.revoked_at.is_(None)).order_by(api_key.c.id)
        return [ApiKey(**row) for row in tx.execute(own).mappings()]


def revoke_key(db: Database, owner: Tenant, id: str) -> bool:
    """Close the door for a key, at once. False if the tenant has no such key, or it was closed before."""
    own = (api_key.c.id == id) & (api_key.c.tenant_id == owner.id) & api_key.c.revoked_at.is_(None)
    with db.begin() as tx:
        return tx.execute(sa.update(api_key).where(own).values(revoked_at=clock()).returning(api_key.c.id)).first() is not None


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _storable(handle: str) -> str:
    """What cannot be a handle must not reach the database, which takes neither NUL nor half a surrogate pair."""
    return handle if handle.isascii() and handle.isalnum() else ""
