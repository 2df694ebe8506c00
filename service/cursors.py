"""Opaque cursors: where a page ended, as text that a client hands back unread."""

import base64
import binascii
import json
from typing import Any

from mutransfer.errors import SpecError


def encode(position: Any) -> str:
    """A cursor for a position made of strings and numbers."""
    return base64.urlsafe_b64encode(json.dumps(position, separators=(",", ":")).encode()).decode().rstrip("=")


def decode(cursor: str, *kinds: type) -> list[Any]:
    """The position in a cursor, one value for each of `kinds`. Raises SpecError naming `cursor`."""
    try:
        position = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        position = None
    well_formed = isinstance(position, list) and [type(value) for value in position] == list(kinds)
    if not well_formed:
        raise SpecError.at("cursor", "not a cursor that this service gave out")
    return list(position)
