"""The template of a schedule as the database keeps it, which a later version may take no longer."""

from collections.abc import Mapping
from typing import Any

from mutransfer.errors import SpecError
from mutransfer.spec import StudySpec, parse_study


def stored_template(document: Mapping[str, Any]) -> tuple[StudySpec | None, str]:
    """The template, or why this version takes it no longer: pages and lists then say so, and nights fail."""
    try:
        return parse_study(document), ""
    except SpecError as error:
        return None, str(error)
