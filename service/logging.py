"""Logs: one JSON object a line on stderr, with the study and trial ids that are bound; a person's form on request."""

import logging
import re
from secrets import token_hex
import sys
import time
from typing import Literal

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
import structlog

log = structlog.get_logger(__name__)
REQUEST_ID_HEADER = "X-Request-ID"
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
SUBJECTS = re.compile(r"/studies/(?P<study>st_[0-9A-Z]{26})(?:/trials/(?P<trial>[0-9a-f]{1,64}))?")
# Without local variables: they hold tokens, and whole studies.
_traceback = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)


def configure_logging(log_format: Literal["json", "console"] = "json", *, level: int = logging.INFO) -> None:
    """Send structlog's and the standard library's records (uvicorn, alembic) to stderr in one form."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[structlog.types.Processor] = (
        [structlog.processors.ExceptionRenderer(_traceback), structlog.processors.JSONRenderer()]
        if log_format == "json"
        else [
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        ]
    )
    handler = logging.StreamHandler(sys.stderr)
    remove_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[remove_meta, *last]))
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


class AccessLog:
    """ASGI middleware: one line a request with who called, path, status and seconds, never the query.

    All lines of a request carry its id, taken from X-Request-ID or made, and the study and trial of its path.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), 500
        request_id = _request_id(scope)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id, **_subjects(scope["path"])):
            try:
                await self._app(scope, receive, watch)
            finally:
                seconds = round(time.monotonic() - started, 4)
                log.info(
                    "request", method=scope["method"], path=scope["path"], status=status, seconds=seconds,
                    actor=state.get("actor", ""),
                )  # fmt: skip


def _request_id(scope: Scope) -> str:
    """The caller's own id where it is one, else a new one: 64 characters that need no escaping anywhere."""
    given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
    return given if REQUEST_ID.fullmatch(given) else token_hex(16)


def _subjects(path: str) -> dict[str, str]:
    """The study and the trial that a path names."""
    found = SUBJECTS.search(path)
    return {} if found is None else {name: value for name, value in found.groupdict().items() if value}
