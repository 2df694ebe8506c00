"""On whose behalf the database is read and written: known to every query of a request without being handed down.

A request's actor may be bound to one project. `session.session_factory` shows such an actor the studies of that project
only, whatever asks and however, so that no page or route can forget to filter.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from service.db.states import Scope


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who acts, and what it may do. `project`: the only one that is seen and touched; None for all."""

    id: str  # of a token, or the kind of caller where there are none: local, home, service
    name: str = ""
    scope: Scope = Scope.ADMIN
    project: str | None = None
    request_id: str = ""


NOBODY = Actor(id="nobody", scope=Scope.READ, project="")  # shows no token: the project of that name has no rows
SERVICE = Actor(id="service")  # processes of ours: dispatcher, scheduler, exporter, drivers
_acting: ContextVar[Actor] = ContextVar("mutransfer_actor", default=SERVICE)


def current_actor() -> Actor:
    """Who acts now."""
    return _acting.get()


@contextmanager
def acting(actor: Actor) -> Iterator[None]:
    """Let `actor` act within."""
    token = _acting.set(actor)
    try:
        yield
    finally:
        _acting.reset(token)
