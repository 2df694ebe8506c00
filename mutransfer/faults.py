"""Faults of a study that name their own field, for checks that see several fields at once."""

from pydantic_core import PydanticCustomError


def fault(field: str, message: str) -> PydanticCustomError:
    """An error that names its own field, for checks that see several fields at once."""
    return PydanticCustomError("study", "{message}", {"field": field, "message": message})
