"""Routes whose answers carry an ETag: a client that has the newest document is answered 304 without a body."""

from collections.abc import Callable, Coroutine
from hashlib import sha256
from http import HTTPStatus
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class ConditionalRoute(APIRoute):
    """An APIRoute that answers GET with an ETag over the body, and honours If-None-Match."""

    def get_route_handler(self) -> Handler:
        """The route's handler, with the ETag."""
        handle = super().get_route_handler()

        async def conditional(request: Request) -> Response:
            response = await handle(request)
            body = getattr(response, "body", b"")  # a stream has none
            if request.method != "GET" or response.status_code != HTTPStatus.OK or not body:
                return response
            tag = f'"{sha256(body).hexdigest()[:32]}"'
            if tag in request.headers.get("if-none-match", "").replace("W/", ""):
                return Response(status_code=HTTPStatus.NOT_MODIFIED, headers={"ETag": tag})
            response.headers["ETag"] = tag
            return response

        return conditional
