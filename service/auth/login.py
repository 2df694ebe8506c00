"""The login page: a token is exchanged for a browser session, and logging out ends that."""

from http import HTTPStatus
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse

from service.auth.access import COOKIE, LOGIN_PATH, Limits, address
from service.auth.doorkeeper import Doorkeeper
from service.auth.scopes import OPEN, READ
from service.dashboard.assets import Assets
from service.db.logins import LIFETIME_SECONDS
from service.reports.templating import render

MAX_NEXT_CHARACTERS = 2000


class Login:
    """The handlers, with what they share."""

    def __init__(self, doorkeeper: Doorkeeper, limits: Limits) -> None:
        self._doorkeeper = doorkeeper
        self._limits = limits
        self._assets = Assets()

    def page(self, next: str = "/") -> Response:  # noqa: A002 - the parameter's public name
        """Ask for a token."""
        return self._page(local_path(next))

    async def log_in(self, request: Request) -> Response:
        """Start a session for a valid token; the page again for another one."""
        fields = parse_qs((await request.body()).decode("utf-8", "replace"))
        target = local_path(fields.get("next", ["/"])[0])
        secret = fields.get("token", [""])[0].strip()
        actor = await run_in_threadpool(self._doorkeeper.by_secret, secret) if secret else None
        if actor is None:
            refusal = self._limits.refusal(self._limits.strangers, address(request))
            return refusal or self._page(target, wrong=True)
        cookie = await run_in_threadpool(self._doorkeeper.begin, secret, actor)
        response = RedirectResponse(target, status_code=HTTPStatus.SEE_OTHER)
        response.set_cookie(
            COOKIE, cookie, max_age=int(LIFETIME_SECONDS), httponly=True, samesite="lax",
            secure=request.url.scheme == "https",
        )  # fmt: skip
        return response

    def log_out(self, request: Request) -> Response:
        """End the session."""
        if cookie := request.cookies.get(COOKIE):
            self._doorkeeper.end(cookie)
        response = RedirectResponse(LOGIN_PATH, status_code=HTTPStatus.SEE_OTHER)
        response.delete_cookie(COOKIE, httponly=True, samesite="lax")
        return response

    def _page(self, target: str, *, wrong: bool = False) -> Response:
        html = render("login.html", assets=self._assets, target=target, wrong=wrong)
        status = HTTPStatus.FORBIDDEN if wrong else HTTPStatus.OK
        return HTMLResponse(html, status_code=int(status), headers={"Cache-Control": "no-store"})


def local_path(target: str) -> str:
    """`target` when it is a path of this service, else the home page: a login leads nowhere else."""
    is_local = target.startswith("/") and not target.startswith(("//", "/\\")) and len(target) <= MAX_NEXT_CHARACTERS
    return target if is_local and target.isprintable() else "/"


def router(doorkeeper: Doorkeeper, limits: Limits) -> APIRouter:
    """The routes of logging in and out."""
    login, routes = Login(doorkeeper, limits), APIRouter(include_in_schema=False)
    routes.add_api_route(LOGIN_PATH, login.page, methods=["GET"], response_class=HTMLResponse, dependencies=[OPEN])
    routes.add_api_route(LOGIN_PATH, login.log_in, methods=["POST"], response_class=HTMLResponse, dependencies=[OPEN])
    routes.add_api_route("/logout", login.log_out, methods=["POST"], response_class=HTMLResponse, dependencies=[READ])
    return routes
