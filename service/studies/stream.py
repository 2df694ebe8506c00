"""A study's events as server-sent events. A stream holds no database session between two looks.

All streams of one study share their looks at its progress: a hundred watchers cost hardly more than one.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
import json
import time
from typing import Any

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from sqlalchemy.exc import DBAPIError
from starlette.concurrency import run_in_threadpool

from mutransfer.errors import TransientError
from service.context import Context
from service.db.actors import SERVICE, acting, current_actor
from service.db.events import Event, events_after
from service.db.session import Sessions, is_transient, reading
from service.studies.read import Pulse, pulse

POLL_SECONDS = 0.5
KEEPALIVE_SECONDS = 15.0
OUTAGE_SECONDS = 2.0
STUDIES_KEPT = 256
PROGRESS = "progress"


class Watch:
    """Looks at studies for all streams of one application. Used from its event loop only."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._looks: OrderedDict[str, tuple[float, asyncio.Task[Pulse]]] = OrderedDict()

    async def pulse(self, study_id: str) -> Pulse:
        """How far the study is, as of POLL_SECONDS ago at most. Raises NotFoundError."""
        begun, look = self._looks.get(study_id, (0.0, None))
        if look is None or time.monotonic() - begun >= POLL_SECONDS:
            with acting(SERVICE):  # a look is for all watchers; who may watch, `check_visible` says
                look = asyncio.create_task(run_in_threadpool(self._pulse, study_id))
            self._looks[study_id] = time.monotonic(), look
            self._looks.move_to_end(study_id)
            if len(self._looks) > STUDIES_KEPT:
                self._looks.popitem(last=False)
        return await asyncio.shield(look)  # a watcher that leaves must not take the others' look with it

    async def check_visible(self, study_id: str) -> None:
        """That the acting caller may watch a study. Raises NotFoundError."""
        if current_actor().project is not None:
            await run_in_threadpool(self._pulse, study_id)

    async def events(self, study_id: str, after: int) -> list[Event]:
        """The next events beyond `after`."""
        return await run_in_threadpool(self._events, study_id, after)

    def _pulse(self, study_id: str) -> Pulse:
        with reading(self._sessions) as session:
            return pulse(session, study_id)

    def _events(self, study_id: str, after: int) -> list[Event]:
        with reading(self._sessions) as session:
            return events_after(session, study_id, after)


async def stream(context: Context, watch: Watch, study_id: str, after: int) -> AsyncIterator[bytes]:
    """Events beyond `after` as they happen, `progress` whenever it changes; ends with the study or the server."""
    told: dict[str, Any] | None = None
    spoke = time.monotonic()
    while not context.stopping.is_set():
        wait = POLL_SECONDS
        try:
            seen = await watch.pulse(study_id)
            if seen.progress != told:
                told, spoke = seen.progress, time.monotonic()
                yield format_sse_event(event=PROGRESS, data_str=json.dumps(told))
            while after < seen.last_event:  # after the progress, so that `finished` is the last word
                for event in await watch.events(study_id, after):
                    after = event.id
                    yield encode(event)
            if seen.is_over:
                return
        except (TransientError, DBAPIError) as error:
            if isinstance(error, DBAPIError) and not is_transient(error):
                raise
            wait = OUTAGE_SECONDS  # the watcher stays; what it missed is told when the database is back
        if time.monotonic() - spoke > KEEPALIVE_SECONDS:
            spoke = time.monotonic()
            yield KEEPALIVE_COMMENT
        await asyncio.sleep(wait)


def encode(event: Event) -> bytes:
    """One stored event on the wire: the client may resume after its id."""
    data = json.dumps({"at": event.at, **event.payload})
    return format_sse_event(id=str(event.id), event=event.kind, data_str=data)
