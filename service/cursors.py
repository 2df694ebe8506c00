"""Opaque cursors: where a page ended, as text that a client hands back unread."""

import base64
import binascii
import json
from typing import Any

from mutransfer.errors import SpecError
from service.db.base import MOST_BIG_INTEGER
from service.request_text import is_storable


def encode(position: Any) -> str:
    """A cursor for a position made of strings and numbers."""
    return base64.urlsafe_b64encode(json.dumps(position, separators=(",", ":")).encode()).decode().rstrip("=")


def decode(cursor: str, *kinds: type) -> list[Any]:
    """The position in a cursor, one value for each of `kinds` that a column can hold. Raises SpecError at `cursor`."""
    try:
        position = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        position = None
    right = isinstance(position, list) and [type(value) for value in position] == list(kinds)
    if not right or not all(map(_is_a_columns, position)):
        raise forged()
    return list(position)


def forged() -> SpecError:
    """The error for a cursor that holds what no list has."""
    return SpecError.at("cursor", "not a cursor that this service gave out")


def _is_a_columns(value: Any) -> bool:
    match value:
        case int():
            return abs(value) <= MOST_BIG_INTEGER
        case str():
            return is_storable(value)
        case _:
            return True
