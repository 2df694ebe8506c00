"""What no text of ours holds, since PostgreSQL stores none: the character NUL, refused in addresses before any look-up.

Bodies are checked where they are parsed (service.studies.documents).
"""

from fastapi import Request

from mutransfer.errors import NotFoundError, Problem, SpecError

NUL = "\0"


def is_storable(text: str) -> bool:
    """Whether a database can hold a text: neither NUL nor half of a pair of surrogates, which JSON can spell."""
    return NUL not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def storable(request: Request) -> None:
    """A dependency of every route. Raises NotFoundError for a path with NUL, SpecError for a query parameter."""
    if NUL in request.url.path or any(NUL in str(value) for value in request.path_params.values()):
        raise NotFoundError("no address of ours has the character NUL")
    found = [name for name, value in request.query_params.multi_items() if NUL in name + value]
    if found:
        raise SpecError([Problem(field=name.replace(NUL, ""), message="has the character NUL") for name in found])
