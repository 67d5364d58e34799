"""What is told where a job cannot be queued, whatever it is for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from api.problems import Problem
from db import life


def not_kept(gone: KeyError) -> Problem:
    """Bytes that a request needs were cleared away, because nothing had used them for long."""
    return Problem(409, f"the bytes {gone} are not kept any more", code="not_kept", hint="upload them again")


def key_reused(reused: life.KeyReused) -> Problem:
    """An idempotency key came with two requests."""
    return Problem(
        422, f"the idempotency key {reused} came before with another body", code="key_reused", hint="use a new key for a new request"
    )


@contextmanager
def queueing(lost: Callable[[KeyError], Problem] = not_kept) -> Iterator[None]:
    """A Problem where the block cannot queue its job: the key was used before, too many wait, or, as `lost` tells it, bytes are gone."""
    try:
        yield
    except life.KeyReused as reused:
        raise key_reused(reused) from None
    except life.TooManyQueued as many:
        hint = "wait until some have run, or cancel some"  # inspections are among them
        raise Problem(429, str(many), code="too_many_queued", hint=hint, headers={"Retry-After": "30"}) from None
    except KeyError as gone:
        raise lost(gone) from None
