"""Tokens by the API, browser sessions, rate limits, the audit log, and when the door closes."""

from collections.abc import Callable

from pydantic import SecretStr
import pytest
from sqlalchemy import update

from service.auth.access import COOKIE, STRANGERS
from service.db.session import db_now, transact
from service.db.tables_access import ApiTokenRow, LoginSessionRow
from service.runtime import ensure_token
from service.settings import Settings
from tests import study_builders as build
from tests.integration.api_fixtures import STUDIES, Api

TOKENS, AUDIT = "/api/v1/tokens", "/api/v1/audit-log"
HTML = {"Accept": "text/html"}
OURS = {"Origin": "http://127.0.0.1:8400"}


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def make(api: Api, scope: str = "admin", by: str = "", **more: object) -> dict[str, str]:
    headers = bearer(by) if by else {}
    response = api.post(TOKENS, json={"name": f"a {scope}", "scope": scope, **more}, headers=headers)
    assert response.status_code == 201, response.text
    made: dict[str, str] = response.json()
    return made


def log_in(api: Api, secret: str, target: str = "/") -> None:
    response = api.post("/login", data={"token": secret, "next": target}, headers=OURS, follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (303, target), response.text


def test_the_first_token_closes_the_door_and_nothing_opens_it_again(api: Api) -> None:
    assert api.get(STUDIES).status_code == 200
    made = make(api)
    assert made["secret"].startswith(made["prefix"])
    assert api.get(STUDIES).status_code == 401
    headers = bearer(made["secret"])
    assert api.get(STUDIES, headers=headers).status_code == 200
    assert api.delete(f"{TOKENS}/{made['id']}", headers=headers).json()["revoked_at"] is not None
    assert api.get(STUDIES, headers=headers).status_code == 401
    assert api.get(STUDIES).status_code == 401
    with Api(api.settings) as restarted:
        assert restarted.get(STUDIES).status_code == 401


def test_the_first_token_must_be_able_to_make_others(api: Api) -> None:
    for body in (
        {"name": "x", "scope": "submit"},
        {"name": "x", "scope": "admin", "project": "default"},
        {"name": "x", "scope": "admin", "expires_in_days": 1},
    ):
        response = api.post(TOKENS, json=body)
        assert response.status_code == 409, body
        assert "scope admin" in response.json()["detail"]
    assert api.get(STUDIES).status_code == 200


def test_the_owner_of_the_home_is_never_locked_out(make_api: Callable[..., Api], api_settings: Settings) -> None:
    secret = ensure_token(api_settings.home)
    with Api(api_settings) as api:
        assert api.get(STUDIES).status_code == 200
        make(api, "read")
        assert api.get(STUDIES).status_code == 401
        assert api.get("/api/v1/whoami", headers=bearer(secret)).json()["id"] == "home"


@pytest.mark.parametrize("change", [{"host": "0.0.0.0"}, {"embedded": False}, {"auth": "required"}])
def test_beyond_one_persons_machine_the_door_is_closed_from_the_start(
    make_api: Callable[..., Api], change: dict[str, object]
) -> None:
    api = make_api(**change)
    assert api.get(STUDIES).status_code == 401
    assert api.post(TOKENS, json={"name": "x", "scope": "admin"}).status_code == 401


def test_secrets_are_told_once_and_stored_hashed(api: Api) -> None:
    made = make(api)
    headers = bearer(made["secret"])
    for path in (TOKENS, f"{TOKENS}/{made['id']}", AUDIT):
        assert made["secret"] not in api.get(path, headers=headers).text
    api.sessions.kw["bind"].dispose()
    content = b"".join(file.read_bytes() for file in api.settings.home.glob("mutransfer.db*"))
    assert made["secret"].encode() not in content
    assert made["id"].encode() in content


def test_an_expired_token_is_refused_and_use_is_noted(api: Api) -> None:
    admin = make(api)["secret"]
    short = make(api, "read", by=admin, expires_in_days=0.5)
    assert api.get(STUDIES, headers=bearer(short["secret"])).status_code == 200
    shown = api.get(f"{TOKENS}/{short['id']}", headers=bearer(admin)).json()
    assert shown["last_used_at"] is not None
    assert shown["created_by"] != "local"
    past = update(ApiTokenRow).where(ApiTokenRow.id == short["id"]).values(expires_at=db_now() - 1.0)
    transact(api.sessions, lambda session: session.execute(past))
    api.app.state.doorkeeper.changed()  # type: ignore[attr-defined]  # it may remember a token for a second
    assert api.get(STUDIES, headers=bearer(short["secret"])).status_code == 401


def test_pages_lead_to_the_login_and_back(api: Api) -> None:
    secret = make(api)["secret"]
    response = api.get("/?state=queued", headers=HTML, follow_redirects=False)
    assert response.status_code == 303
    assert response.headers["location"] == "/login?next=%2F%3Fstate%3Dqueued"
    page = api.get(response.headers["location"], headers=HTML)
    assert 'value="/?state=queued"' in page.text
    assert api.post("/login", data={"token": "wrong", "next": "/"}, headers=OURS).status_code == 403
    log_in(api, secret, "/?state=queued")
    cookie = next(cookie for cookie in api.cookies.jar if cookie.name == COOKIE)
    assert cookie.has_nonstandard_attr("HttpOnly")
    assert cookie.get_nonstandard_attr("SameSite") == "lax"
    assert secret not in str(cookie.value)
    assert api.get("/", headers=HTML).status_code == 200
    assert api.get(STUDIES).status_code == 200
    assert api.post("/logout", headers=OURS, follow_redirects=False).status_code == 303
    api.cookies.set(COOKIE, str(cookie.value))  # a browser that kept it all the same
    assert api.get(STUDIES).status_code == 401


@pytest.mark.parametrize(
    "target", ["//evil.example", "/\\evil.example", "https://evil.example", "", "/a\nb", "x" * 3000]
)
def test_a_login_leads_nowhere_else(api: Api, target: str) -> None:
    secret = make(api)["secret"]
    fields = {"token": secret, "next": target}
    response = api.post("/login", data=fields, headers=OURS, follow_redirects=False)
    assert response.headers["location"] == "/"


def test_a_session_ends_with_its_token_and_its_time(api: Api) -> None:
    admin = make(api)["secret"]
    made = make(api, "submit", by=admin)
    log_in(api, made["secret"])
    assert api.get(STUDIES).status_code == 200
    api.delete(f"{TOKENS}/{made['id']}", headers=bearer(admin))
    assert api.get(STUDIES).status_code == 401
    log_in(api, admin)
    assert api.get(STUDIES).status_code == 200
    ended = update(LoginSessionRow).values(expires_at=db_now() - 1.0)
    transact(api.sessions, lambda session: session.execute(ended))
    api.app.state.doorkeeper.changed()  # type: ignore[attr-defined]
    assert api.get(STUDIES).status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        (OURS, 201),
        ({"Sec-Fetch-Site": "same-origin"}, 201),
    ],
)
def test_a_session_changes_things_from_our_own_pages_only(api: Api, headers: dict[str, str], status: int) -> None:
    log_in(api, make(api)["secret"])
    before = api.rows()
    assert api.post(STUDIES, json=build.document(), headers=headers).status_code == status
    assert (api.rows() > before) == (status == 201)


def test_a_session_has_the_scope_of_its_token(api: Api) -> None:
    admin = make(api)["secret"]
    log_in(api, make(api, "read", by=admin)["secret"])
    assert api.get(STUDIES).status_code == 200
    assert api.post(STUDIES, json=build.document(), headers=OURS).status_code == 403


def test_too_many_requests_are_told_when_to_come_again(make_api: Callable[..., Api]) -> None:
    secret = "correct-horse-battery-staple"
    api = make_api(token=SecretStr(secret), rate_limit=1.0)
    answers = [api.get("/api/v1/whoami", headers=bearer(secret)) for _ in range(8)]
    statuses = [answer.status_code for answer in answers]
    assert statuses[:5] == [200] * 5
    assert statuses[-1] == 429
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 2
    assert answers[-1].headers["content-type"] == "application/problem+json"
    assert api.get("/healthz").status_code == 200


def test_guessing_is_slowed_down_and_others_are_not(make_api: Callable[..., Api]) -> None:
    secret = "correct-horse-battery-staple"
    api = make_api(token=SecretStr(secret))
    tries = [api.get(STUDIES, headers=bearer(f"guess-{n}")).status_code for n in range(int(STRANGERS.burst) + 3)]
    assert set(tries) == {401, 429}
    assert tries[-1] == 429
    assert api.post("/login", data={"token": "guess"}, headers=OURS).status_code == 429
    assert api.get(STUDIES, headers=bearer(secret)).status_code == 200


def test_every_change_is_in_the_audit_log(api: Api) -> None:
    admin = make(api)
    headers = bearer(admin["secret"]) | {"X-Request-ID": "my-request.1"}
    other = make(api, "read", by=admin["secret"])
    study = api.post(STUDIES, json=build.document(), headers=headers).json()["id"]
    api.post(f"{STUDIES}/{study}/cancel", headers=headers)
    api.put("/api/v1/projects/vision", json={"device_hours": 3}, headers=headers)
    api.delete(f"{TOKENS}/{other['id']}", headers=headers)
    assert api.post(STUDIES, json={"version": 1}, headers=headers).status_code == 422
    log_in(api, admin["secret"])
    items = api.get(AUDIT, headers=headers).json()["items"]
    assert [item["action"] for item in items] == [
        "login", "token.revoke", "project.create", "study.cancel", "study.submit", "project.create", "token.create",
        "token.create",
    ]  # fmt: skip
    cancelled = items[3]
    assert (cancelled["actor"], cancelled["target"], cancelled["request_id"], cancelled["project"]) == (
        admin["id"], study, "my-request.1", "tests",
    )  # fmt: skip
    assert items[-1]["actor"] == "local"
    only = api.get(AUDIT, params={"action": "study.cancel"}, headers=headers).json()["items"]
    assert only == [cancelled]
    first = api.get(AUDIT, params={"limit": 3}, headers=headers).json()
    rest = api.get(AUDIT, params={"cursor": first["next_cursor"]}, headers=headers).json()
    assert [item["id"] for item in first["items"] + rest["items"]] == [item["id"] for item in items]


def test_requests_carry_an_id_in_and_out(refusing: Api) -> None:
    assert refusing.get(STUDIES, headers={"X-Request-ID": "a.b-1"}).headers["x-request-id"] == "a.b-1"
    for bad in ("", "x" * 65, "a b", 'a"b'):
        made = refusing.get(STUDIES, headers={"X-Request-ID": bad}).headers["x-request-id"]
        assert len(made) == 32
    assert refusing.get(STUDIES, headers={"Host": "evil.example"}).headers["x-request-id"]
