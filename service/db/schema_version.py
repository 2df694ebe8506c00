"""Processes of one version on the database of another: refused before they misread a row or write one."""

from functools import cache

from sqlalchemy.orm import Session

from mutransfer.errors import OutdatedError
from service.db.figures import revision


def check(session: Session) -> None:
    """Raises OutdatedError when the database is at another revision than this code knows as its newest."""
    found, known = revision(session), _known()
    if found != known:
        raise OutdatedError(
            f"the database is at revision {found}, this version of mutransfer works with {known}: "
            "start the version that migrated it, or bring it up to date with `mutransfer db upgrade`"
        )


@cache
def _known() -> str:
    from service.db.migrate import head

    return head()
