"""Make ULIDs: 26 characters that sort by time of creation (48 bits of milliseconds, 80 random bits; Crockford's base 32)."""

from __future__ import annotations

import secrets
import time

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LENGTH_CHARACTERS = 26
RANDOM_BITS = 80


def new_ulids(count: int) -> list[str]:
    """Unique ids in ascending order, all of this millisecond."""
    milliseconds = time.time_ns() // 1_000_000
    start = secrets.randbits(RANDOM_BITS - 1)  # one bit free, so that adding the position does not carry into the time
    return [_encoded(milliseconds << RANDOM_BITS | start + position) for position in range(count)]


def _encoded(value: int) -> str:
    return "".join(ALPHABET[value >> 5 * place & 31] for place in reversed(range(LENGTH_CHARACTERS)))
