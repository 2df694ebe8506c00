"""Every route demands its scope, and a project's token sees its project alone."""

from collections.abc import Callable, Iterator
import re

from fastapi import FastAPI
from fastapi.routing import RouteContext
from fastapi.testclient import TestClient
import pytest

from service.auth import scopes
from service.auth.access import is_open
from service.auth.scopes import Demand
from service.db import tokens
from service.db.actors import Actor, acting
from service.db.session import transact
from service.db.states import Scope
from service.db.tokens import TokenRequest
from tests import study_builders as build
from tests.integration.api_fixtures import STUDIES, Api, finish_study

PROJECT = build.spec().project
PLACEHOLDERS = {"study_id": "st_01KAMRQ4ZJ5T2V8Y6W3X7B9CDE", "key": "0", "kind": "md", "path": "x"}
# What FastAPI serves by itself, any token will do; the middleware alone stands before it.
BY_FASTAPI = {"/api/v1/openapi.json"}


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, migrated_database: object) -> Iterator["Secured"]:
    from tests.integration.api_fixtures import settings_in

    with Secured(settings_in(tmp_path_factory.mktemp("scopes"), migrated_database), raise_bugs=False) as api:  # type: ignore[arg-type]
        api.fill()
        yield api


class Secured(Api):
    """An application with a token of each kind and a study in each of two projects."""

    def fill(self) -> None:
        self.secrets: dict[str, str] = {}
        self.studies = {name: self.submit(project=name) for name in (PROJECT, "other")}
        finish_study(self.drive())
        self.secrets["admin"] = self.token("admin")
        for scope in ("read", "submit"):
            self.secrets[scope] = self.token(scope)
        for scope in Scope:
            self.secrets[f"bound-{scope}"] = self.token(scope, project=PROJECT)

    def token(self, scope: str, **more: object) -> str:
        response = self.post(
            "/api/v1/tokens", json={"name": f"a {scope} token", "scope": scope, **more},
            headers=bearer(self.secrets["admin"]) if self.secrets else {},
        )  # fmt: skip
        assert response.status_code == 201, response.text
        secret: str = response.json()["secret"]
        return secret


def application(api: TestClient) -> FastAPI:
    found = api.app
    assert isinstance(found, FastAPI)
    return found


def calls(app: FastAPI) -> Iterator[tuple[str, str, RouteContext]]:
    """(method, concrete path, route) of everything that can be asked."""
    for route in scopes.routes(app):
        path = re.sub(r"\{(\w+)(:\w+)?\}", lambda found: PLACEHOLDERS.get(found[1], "x"), route.path or "")
        for method in sorted(route.methods or ()):
            yield method, path, route


def test_every_route_says_what_it_demands(secured: Api) -> None:
    silent = {route.path for _, _, route in calls(application(secured)) if len(scopes.demands(route)) != 1}
    assert silent == BY_FASTAPI, "give each route one of service.auth.scopes: dependencies=[READ], [SUBMIT], [ADMIN] …"


def test_only_what_is_listed_is_open_to_everyone(secured: Api) -> None:
    for _, path, route in calls(application(secured)):
        demanded = scopes.demands(route)
        assert is_open(path) == (bool(demanded) and demanded[0].scope is None), path


def test_changes_demand_more_than_reading(secured: Api) -> None:
    reading_posts = {"/api/v1/plan", "/login", "/logout"}
    for method, path, route in calls(application(secured)):
        demanded = scopes.demands(route)
        if method not in ("GET", "HEAD") and path not in reading_posts:
            assert demanded[0].scope in (Scope.SUBMIT, Scope.ADMIN), (method, path)


def test_without_a_token_every_route_is_closed(secured: Api) -> None:
    count = 0
    for method, path, _ in calls(application(secured)):
        if not is_open(path):
            response = secured.request(method, path)
            assert response.status_code in (401, 429), (method, path)
            count += 1
    assert count > 25


@pytest.mark.parametrize("scope", list(Scope))
def test_every_route_refuses_smaller_scopes_and_no_others(secured: Secured, scope: Scope) -> None:
    for method, path, route in calls(application(secured)):
        demanded = scopes.demands(route)
        if path == "/logout" or not demanded or demanded[0].scope is None or path.endswith("/events"):
            continue
        response = secured.request(method, path, headers=bearer(secured.secrets[scope]), follow_redirects=False)
        assert response.status_code != 401
        refused = response.status_code == 403
        assert refused == (not scope.allows(demanded[0].scope)), (method, path, response.text)


def test_a_route_that_says_nothing_is_for_administrators(make_api: Callable[..., Api]) -> None:
    api = make_api(raise_bugs=False)
    app = application(api)

    @app.get("/api/v1/forgotten")
    def forgotten() -> str:
        return "x"

    scopes.guard_undeclared(app)
    assert forgotten in app.state.undeclared
    api.post("/api/v1/tokens", json={"name": "a", "scope": "admin"})
    with acting(Actor(id="test")):
        reader = transact(
            api.sessions, lambda s: tokens.create(s, TokenRequest(name="r", scope=Scope.SUBMIT), other_admin=True)[1]
        )
    app.state.doorkeeper.changed()
    assert api.get("/api/v1/forgotten", headers=bearer(reader)).status_code == 403


def test_a_bound_token_sees_its_project_alone(secured: Secured) -> None:
    mine, other = secured.studies[PROJECT], secured.studies["other"]
    for kind in ("bound-read", "bound-submit", "bound-admin"):
        headers = bearer(secured.secrets[kind])
        assert [item["id"] for item in secured.get(STUDIES, headers=headers).json()["items"]] == [mine]
        assert [item["name"] for item in secured.get("/api/v1/projects", headers=headers).json()["items"]] == [PROJECT]
        home = secured.get("/", headers=headers).text
        assert mine in home
        assert other not in home
        for _method, path, _ in calls(application(secured)):
            theirs = path.replace(PLACEHOLDERS["study_id"], other)
            if theirs != path:
                response = secured.request("GET", theirs, headers=headers, params={"width": 64})
                assert response.status_code in (403, 404, 405, 422), theirs
                assert "other" not in response.text.replace("another", ""), theirs
    submit = bearer(secured.secrets["bound-submit"])
    assert secured.post(f"{STUDIES}/{other}/cancel", headers=submit).status_code == 404
    assert secured.post(STUDIES, json=build.document(project="other"), headers=submit).status_code == 403
    assert secured.post(STUDIES, json=build.document(project=PROJECT), headers=submit).status_code == 201


def test_keys_used_in_another_project_tell_nothing_of_its_studies(secured: Secured) -> None:
    admin, bound = (bearer(secured.secrets[kind]) for kind in ("admin", "bound-submit"))
    theirs = build.document(project="other", name="theirs")
    key = {"Idempotency-Key": "theirs"}
    study_id = secured.post(STUDIES, json=theirs, headers=admin | key).json()["id"]
    for document in (theirs, build.document(project=PROJECT)):
        refused = secured.post(STUDIES, json=document, headers=bound | key)
        assert refused.status_code in (403, 409)
        assert study_id not in refused.text
    for used in ("theirs", "unused"):
        for action in ("retry", "extend"):
            path = f"{STUDIES}/{study_id}/{action}"
            assert secured.post(path, json={}, headers=bound | {"Idempotency-Key": used}).status_code == 404


def test_a_bound_administrator_stays_within_its_project(secured: Secured) -> None:
    headers = bearer(secured.secrets["bound-admin"])
    for body in ({"name": "x", "scope": "read"}, {"name": "x", "scope": "read", "project": "other"}):
        assert secured.post("/api/v1/tokens", json=body, headers=headers).status_code == 403
    made = secured.post("/api/v1/tokens", json={"name": "x", "scope": "read", "project": PROJECT}, headers=headers)
    assert made.status_code == 201
    projects = {item["project"] for item in secured.get("/api/v1/tokens", headers=headers).json()["items"]}
    assert projects == {PROJECT}
    entries = secured.get("/api/v1/audit-log", headers=headers).json()["items"]
    assert {entry["project"] for entry in entries} == {PROJECT}
    assert secured.put(f"/api/v1/projects/{PROJECT}", json={"device_hours": 1}, headers=headers).status_code == 403
    assert secured.get("/metrics", headers=headers).status_code == 403


def test_demands_are_what_they_say() -> None:
    for scope in Scope:
        with acting(Actor(id="t", scope=scope)):
            Demand(Scope.READ)()
            Demand(None)()
