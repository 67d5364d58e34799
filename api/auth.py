"""Who is asking: the tenant of the API key, from which alone every route learns whose data it may touch."""

from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.deps import Running
from api.problems import Problem
from db import access
from db.access import Tenant

_bearer = HTTPBearer(auto_error=False, scheme_name="API key", description="`Authorization: Bearer rt_…`, a key made by `python -m api key`")
_LONGEST = 200


def caller(running: Running, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> Tenant:
    """The tenant whose key came with the request; 401 without one, or with one that was revoked."""
    if credentials is not None and len(credentials.credentials) <= _LONGEST and credentials.credentials.isascii():
        tenant = access.authenticate(running.database, credentials.credentials)
        if tenant is not None:
            return tenant
    raise Problem(
        401,
        "this API key is not valid" if credentials else "no API key came with the request",
        hint="send Authorization: Bearer rt_…; `retort up` keeps one in its data folder, `python -m api key` makes another",
        headers={"WWW-Authenticate": 'Bearer realm="retort"'},
    )


Caller = Annotated[Tenant, Depends(caller)]
