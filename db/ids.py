"""Names for rows: a prefix that says what it is, and a uuid7, which sorts by the time it was made."""

import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id(prefix: str) -> str:
    """`<prefix>_` and 26 characters of lower-case base32; a later id is greater, down to a quarter of a microsecond.

    The clock is this machine's: an id orders rows, it never decides whether a lease is over.
    """
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    milliseconds, rest = divmod(nanoseconds, 1_000_000)
    value = (seconds * 1000 + milliseconds) << 80  # 48 bits of milliseconds
    value |= 0x7 << 76  # version
    value |= (rest * 4096 // 1_000_000) << 64  # 12 bits of the millisecond
    value |= 0b10 << 62  # variant
    value |= secrets.randbits(62)
    return f"{prefix}_{base32(value, digits=26)}"


def base32(value: int, *, digits: int) -> str:
    """A number as that many base32 digits, in an alphabet that sorts like the number and has no letters to confuse."""
    return "".join(_ALPHABET[value >> 5 * place & 31] for place in reversed(range(digits)))
