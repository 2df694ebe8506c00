"""What every request handler needs, made once by the application and handed to handlers by `Depends`."""

from dataclasses import dataclass, field
from threading import Event
from typing import Annotated

from fastapi import Depends, Request

from service.db.session import Sessions
from service.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Context:
    """The application's settings and database. `stopping` is set when the server shuts down: streams end then."""

    settings: Settings
    sessions: Sessions
    stopping: Event = field(default_factory=Event)


def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


ContextDep = Annotated[Context, Depends(_context)]
