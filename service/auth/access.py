"""The checks that every request passes before anything reads it: Host, Origin and, where one is set, the token.

Host names bar DNS rebinding, Origin bars other sites' scripts and forms. The token comes as `Authorization: Bearer …`,
or as the cookie that `/login?token=…` sets, since an EventSource cannot send headers.
"""

from hmac import compare_digest
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.problems import problem_response
from service.settings import Settings

COOKIE = "mutransfer_token"
OPEN_PATHS = ("/healthz",)
LOGIN_PATH = "/login"


def host_name(host: str) -> str:
    """The name in a Host header, without its port: `[::1]:8400` → `[::1]`."""
    if host.startswith("["):
        return host.partition("]")[0].lower() + "]"
    return host.partition(":")[0].lower()


class AccessChecks:
    """ASGI middleware: refuses with a problem document before the body is read."""

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        self._app = app
        self._hosts = {name.lower() for name in (*settings.allowed_hosts, settings.host)}
        self._token = settings.token.get_secret_value() if settings.token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        answer = self._refusal(request) or self._login(request)
        await (answer or self._app)(scope, receive, send)

    def _refusal(self, request: Request) -> Response | None:
        host = request.headers.get("host", "")
        if host_name(host) not in self._hosts:
            detail = f"this service does not answer to {host!r}: add the name to MUTRANSFER_ALLOWED_HOSTS"
            return problem_response(HTTPStatus.FORBIDDEN, detail, kind="host")
        origin = request.headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            return problem_response(HTTPStatus.FORBIDDEN, f"requests from {origin!r} are refused", kind="origin")
        return None

    def _login(self, request: Request) -> Response | None:
        if self._token is None or request.url.path in OPEN_PATHS:
            return None
        if request.url.path == LOGIN_PATH and self._matches(request.query_params.get("token", "")):
            return self._welcome(request)
        if self._matches(_bearer(request)) or self._matches(request.cookies.get(COOKIE, "")):
            return None
        detail = f"send the token as `Authorization: Bearer …`, or open {LOGIN_PATH}?token=… in the browser"
        return problem_response(HTTPStatus.UNAUTHORIZED, detail, kind="token", headers={"WWW-Authenticate": "Bearer"})

    def _welcome(self, request: Request) -> Response:
        response = RedirectResponse("/", status_code=HTTPStatus.SEE_OTHER)
        response.set_cookie(
            COOKIE, self._token or "", httponly=True, samesite="lax", secure=request.url.scheme == "https"
        )
        return response

    def _matches(self, given: str) -> bool:
        return compare_digest(given.encode("utf-8", "replace"), (self._token or "").encode())


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
