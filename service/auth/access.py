"""The checks that every request passes before anything reads it: Host, Origin, who calls, and how often.

Host names bar DNS rebinding, Origin bars other sites' scripts and forms. A caller shows a token as `Authorization:
Bearer …`, or the cookie of a browser session, since pages and EventSources send no headers. What a caller then may do,
each route says (`scopes`); which rows it sees, `db.visibility`.
"""

from dataclasses import dataclass, replace
from http import HTTPStatus
from math import ceil
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from mutransfer.errors import TransientError
from service.auth.doorkeeper import LOCAL, Doorkeeper
from service.auth.limits import Limiter, Rate
from service.db.actors import NOBODY, Actor, acting
from service.problems import RETRY_AFTER_SECONDS, problem_response
from service.settings import Settings

COOKIE = "mutransfer_session"
LOGIN_PATH = "/login"
OPEN_PATHS = ("/healthz", "/readyz", LOGIN_PATH, "/favicon.ico")
OPEN_FOLDERS = ("/static/",)  # what the login page is drawn with
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
BURST_SECONDS = 5.0
STRANGERS = Rate(per_second=0.5, burst=30.0)  # requests of one address that show no valid token


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who sends a request, and whether by a browser's cookie, which a browser sends whoever asks it to."""

    actor: Actor
    by_cookie: bool = False


def host_name(host: str) -> str:
    """The name in a Host header, without its port: `[::1]:8400` → `[::1]`."""
    if host.startswith("["):
        return host.partition("]")[0].lower() + "]"
    return host.partition(":")[0].lower()


def is_open(path: str) -> bool:
    """Whether anybody may ask for this."""
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDERS)


class Limits:
    """How often callers may ask: each token for itself, and each address for its tries without one."""

    def __init__(self, per_second: float) -> None:
        self.callers = Limiter(Rate(per_second=per_second, burst=per_second * BURST_SECONDS))
        self.strangers = Limiter(STRANGERS)

    def refusal(self, limiter: Limiter, caller: str) -> Response | None:
        """Take one request of `caller`; the answer when it has none left."""
        wait = limiter.wait_seconds(caller)
        if not wait:
            return None
        detail = f"too many requests: the next one is answered in {wait:.1f} s"
        headers = {"Retry-After": str(ceil(wait))}
        return problem_response(HTTPStatus.TOO_MANY_REQUESTS, detail, kind="rate", headers=headers)


class AccessChecks:
    """ASGI middleware: refuses with a problem document before the body is read, and lets the caller act within."""

    def __init__(self, app: ASGIApp, *, settings: Settings, doorkeeper: Doorkeeper, limits: Limits) -> None:
        self._app = app
        self._hosts = {name.lower() for name in (*settings.allowed_hosts, settings.host)}
        self._doorkeeper = doorkeeper
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        answer = self._foreign(request)
        caller = Caller(actor=NOBODY)
        if answer is None and not is_open(request.url.path):
            found = await self._admit(request)
            if isinstance(found, Response):
                answer = found
            else:
                caller = found
        state = scope.setdefault("state", {})
        state |= {"actor": caller.actor.id, "logged_in": caller.by_cookie}
        with acting(replace(caller.actor, request_id=state.get("request_id", ""))):
            await (answer or self._app)(scope, receive, send)

    async def _admit(self, request: Request) -> Caller | Response:
        """Who calls, or why not."""
        try:
            caller = await run_in_threadpool(self._caller, request)
        except TransientError as error:
            headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
            return problem_response(HTTPStatus.SERVICE_UNAVAILABLE, str(error), kind="unavailable", headers=headers)
        if caller is None:
            return self._limits.refusal(self._limits.strangers, address(request)) or _stranger(request)
        if caller.by_cookie and not _is_ours(request):
            detail = "a browser's session changes things from this service's own pages only: send a token instead"
            return problem_response(HTTPStatus.FORBIDDEN, detail, kind="origin")
        if caller.actor is LOCAL:
            return caller
        return self._limits.refusal(self._limits.callers, caller.actor.id) or caller

    def _caller(self, request: Request) -> Caller | None:
        if token := _bearer(request):
            actor = self._doorkeeper.by_secret(token)
            return Caller(actor=actor) if actor else self._anyone()
        if cookie := request.cookies.get(COOKIE):
            actor = self._doorkeeper.by_cookie(cookie)
            return Caller(actor=actor, by_cookie=True) if actor else self._anyone()
        return self._anyone()

    def _anyone(self) -> Caller | None:
        return Caller(actor=LOCAL) if self._doorkeeper.is_open() else None

    def _foreign(self, request: Request) -> Response | None:
        host = request.headers.get("host", "")
        if host_name(host) not in self._hosts:
            detail = f"this service does not answer to {host!r}: add the name to MUTRANSFER_ALLOWED_HOSTS"
            return problem_response(HTTPStatus.FORBIDDEN, detail, kind="host")
        origin = request.headers.get("origin")
        if origin is not None and not _same_origin(origin, host):
            return problem_response(HTTPStatus.FORBIDDEN, f"requests from {origin!r} are refused", kind="origin")
        return None


def address(request: Request) -> str:
    """Where a request comes from, as far as the server knows."""
    return request.client.host if request.client else ""


def _same_origin(origin: str, host: str) -> bool:
    return origin.partition("://")[2].lower() == host.lower()


def _is_ours(request: Request) -> bool:
    """Whether a request with a cookie changes nothing or comes from a page of ours, which other sites cannot claim."""
    if request.method in SAFE_METHODS or request.headers.get("sec-fetch-site") == "same-origin":
        return True
    return _same_origin(request.headers.get("origin", ""), request.headers.get("host", ""))


def _stranger(request: Request) -> Response:
    """A browser is led to the login page, everyone else told what is missing."""
    wants_page = "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/api/")
    if request.method == "GET" and wants_page and not _bearer(request):
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"{LOGIN_PATH}?next={quote(target, safe='')}", status_code=HTTPStatus.SEE_OTHER)
    detail = f"send a token as `Authorization: Bearer …`, or log in at {LOGIN_PATH} in the browser"
    return problem_response(HTTPStatus.UNAUTHORIZED, detail, kind="token", headers={"WWW-Authenticate": "Bearer"})


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
