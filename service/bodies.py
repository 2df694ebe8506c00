"""Request bodies of bounded size: a larger one is refused early, whether it announces its length or not."""

import asyncio
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import problem_response

READ_SECONDS = 30.0
# After a refusal the client is still sending; one that is reset meanwhile may never see the answer. Listen a little.
LINGER_SECONDS = 2.0


class BodyLimit:
    """ASGI middleware: hands bodies of up to `max_bytes` on whole, answers 413 to larger and 408 to endless ones."""

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        headers = Headers(scope=scope) if scope["type"] == "http" else {}
        length = headers.get("content-length", "")
        if length in ("", "0") and "transfer-encoding" not in headers:
            await self._app(scope, receive, send)
        elif length.isdigit() and int(length) > self._max_bytes:
            await _refuse(self._too_large(), receive, send)
        else:
            await self._bounded(scope, receive, send)

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(READ_SECONDS):
                body = await _read(receive, self._max_bytes)
        except TimeoutError:
            detail = f"the body did not arrive within {READ_SECONDS:g} s"
            await _refuse(problem_response(HTTPStatus.REQUEST_TIMEOUT, detail, kind="bad-request"), receive, send)
            return
        if body is None:
            await _refuse(self._too_large(), receive, send)
            return
        await self._app(scope, _replay(body, receive), send)

    def _too_large(self) -> Response:
        detail = f"the body may have {self._max_bytes} bytes at most"
        return problem_response(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail, kind="bad-request")


async def _read(receive: Receive, max_bytes: int) -> bytes | None:
    """The whole body, None as soon as it exceeds `max_bytes`."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > max_bytes:
            return None
        if not message.get("more_body", False):
            return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A receive channel that gives `body` once, then whatever comes (the client's leaving)."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _refuse(response: Response, receive: Receive, send: Send) -> None:
    """Send the whole answer at once, then listen for a moment before the connection closes."""
    response.headers["Connection"] = "close"
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": True})
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while (await receive()).get("more_body", False):
                pass
    except TimeoutError:
        pass
    await send({"type": "http.response.body", "body": b"", "more_body": False})
