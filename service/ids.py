"""Identifiers: a prefix and a ULID (26 letters of Crockford's base 32), which sort by the time they were made."""

import re
import secrets
import time

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
STUDY_PREFIX = "st_"
TOKEN_PREFIX = "tk_"  # noqa: S105 - the beginning of ids, not a secret
STUDY_ID = re.compile(rf"{STUDY_PREFIX}[0-7][{ALPHABET}]{{25}}")


def ulid(milliseconds: int, randomness: int) -> str:
    """48 bits of time and 80 random ones as 26 characters, most significant first."""
    value = (milliseconds & (1 << 48) - 1) << 80 | randomness & (1 << 80) - 1
    return "".join(ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))


def new_id(prefix: str) -> str:
    """An id unlike any other: `prefix` and a ULID."""
    return prefix + ulid(time.time_ns() // 1_000_000, secrets.randbits(80))


def new_study_id() -> str:
    """A study's id, unlike any other."""
    return new_id(STUDY_PREFIX)


def new_token_id() -> str:
    """An API token's id, unlike any other."""
    return TOKEN_PREFIX + ulid(time.time_ns() // 1_000_000, secrets.randbits(80))


def is_study_id(text: str) -> bool:
    """Whether `text` could be a study's id."""
    return STUDY_ID.fullmatch(text) is not None
