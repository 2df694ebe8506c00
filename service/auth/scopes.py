"""What each route demands of its caller. Every route says so itself: `dependencies=[READ]`; a test walks them all.

A route that says nothing is for unbound administrators alone, so that forgetting it opens no door.
"""

from collections.abc import Iterator, Sequence

from fastapi import Depends, FastAPI, Request
from fastapi.routing import RouteContext, iter_route_contexts

from mutransfer.errors import AccessError
from service.db.actors import NOBODY, current_actor
from service.db.states import Scope


class Demand:
    """A dependency: the caller must have this scope. None: nothing, not even a token.

    `unbound`: nor may it be bound to a project, because what it asks for concerns all of them.
    """

    def __init__(self, scope: Scope | None, *, unbound: bool = False) -> None:
        self.scope = scope
        self.unbound = unbound

    def __call__(self) -> None:
        """Raises AccessError."""
        actor = current_actor()
        if self.scope is not None and (actor.id == NOBODY.id or not actor.scope.allows(self.scope)):
            raise AccessError(f"this needs a token of scope {self.scope}: yours has {actor.scope}")
        if self.unbound and actor.project is not None:
            raise AccessError(f"this concerns all projects: your token is bound to {actor.project}")


OPEN = Depends(Demand(None))
READ = Depends(Demand(Scope.READ))
READ_ALL = Depends(Demand(Scope.READ, unbound=True))
SUBMIT = Depends(Demand(Scope.SUBMIT))
ADMIN = Depends(Demand(Scope.ADMIN))
ADMIN_ALL = Depends(Demand(Scope.ADMIN, unbound=True))

_undeclared = Demand(Scope.ADMIN, unbound=True)


def demands(route: RouteContext) -> Sequence[Demand]:
    """What a route says that it demands; nothing where it forgot to."""
    dependant = getattr(route, "dependant", None)
    found = [] if dependant is None else [dependency.call for dependency in dependant.dependencies]
    return [call for call in found if isinstance(call, Demand)]


def routes(app: FastAPI) -> Iterator[RouteContext]:
    """All routes of an application, those of its routers too."""
    return iter_route_contexts(app.routes)


def guard_undeclared(app: FastAPI) -> None:
    """Remember which endpoints say nothing; call it when every route is in place."""
    app.state.undeclared = {route.endpoint for route in routes(app) if not demands(route)}


def undeclared(request: Request) -> None:
    """The application's own dependency: holds routes that say nothing to the strictest demand."""
    if request.scope.get("endpoint") in request.app.state.undeclared:
        _undeclared()
