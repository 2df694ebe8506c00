"""The one pydantic configuration of every domain value, and canonical digests of them."""

from collections.abc import Mapping
import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict


class Value(BaseModel):
    """A domain value: frozen, closed to unknown fields, finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def canonical_json(document: Mapping[str, Any]) -> str:
    """JSON with sorted keys, no spaces and no NaN: equal documents give equal text."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(document: Mapping[str, Any], *, length: int = 32) -> str:
    """The first `length` hex digits of the SHA-256 of a document's canonical JSON."""
    return hashlib.sha256(canonical_json(document).encode()).hexdigest()[:length]
