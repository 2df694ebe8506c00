"""A study's events as server-sent events. The stream holds no database session between two looks."""

import asyncio
from collections.abc import AsyncIterator
import json
import time
from typing import Any

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from sqlalchemy.exc import DBAPIError
from starlette.concurrency import run_in_threadpool

from service.context import Context
from service.db.events import Event
from service.db.session import is_transient, reading
from service.studies.read import Snapshot, snapshot

POLL_SECONDS = 0.5
KEEPALIVE_SECONDS = 15.0
OUTAGE_SECONDS = 2.0
PROGRESS = "progress"


def look(context: Context, study_id: str, after: int) -> Snapshot:
    """What is new beyond event `after`."""
    with reading(context.sessions) as session:
        return snapshot(session, study_id, after=after)


async def stream(context: Context, study_id: str, after: int) -> AsyncIterator[bytes]:
    """Events beyond `after` as they happen, `progress` whenever it changes; ends with the study or the server."""
    told: dict[str, Any] | None = None
    quiet_since = time.monotonic()
    while not context.stopping.is_set():
        try:
            seen = await run_in_threadpool(look, context, study_id, after)
        except DBAPIError as error:
            if not is_transient(error):
                raise
            await asyncio.sleep(OUTAGE_SECONDS)  # the watcher stays; what it missed is told when the database is back
            continue
        if seen.progress != told:
            told = seen.progress
            yield format_sse_event(event=PROGRESS, data_str=json.dumps(told))
            quiet_since = time.monotonic()
        for event in seen.events:  # after the progress, so that `finished` is the last word
            after = event.id
            yield encode(event)
        if seen.is_over:
            return
        if time.monotonic() - quiet_since > KEEPALIVE_SECONDS:
            quiet_since = time.monotonic()
            yield KEEPALIVE_COMMENT
        await asyncio.sleep(POLL_SECONDS)


def encode(event: Event) -> bytes:
    """One stored event on the wire: the client may resume after its id."""
    data = json.dumps({"at": event.at, **event.payload})
    return format_sse_event(id=str(event.id), event=event.kind, data_str=data)
