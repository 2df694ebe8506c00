from collections.abc import Callable

from pydantic import SecretStr
import pytest
from structlog.testing import capture_logs

from service.auth.access import COOKIE
from service.auth.headers import SECURITY_HEADERS
from tests import study_builders as build
from tests.integration.api_fixtures import STUDIES, Api

TOKEN = "correct-horse-battery-staple"


@pytest.mark.parametrize("host", ["127.0.0.1:8400", "localhost:1", "LOCALHOST", "[::1]:8400", "127.0.0.1"])
def test_our_own_names_are_answered(refusing: Api, host: str) -> None:
    assert refusing.get(STUDIES, headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "127.0.0.2", "[::2]:8400", "x"])
def test_other_names_are_refused(refusing: Api, host: str) -> None:
    for path in (STUDIES, "/", "/healthz"):
        response = refusing.get(path, headers={"Host": host})
        assert response.status_code == 403
        assert "MUTRANSFER_ALLOWED_HOSTS" in response.json()["detail"]


def test_configured_names_are_answered(make_api: Callable[..., Api]) -> None:
    api = make_api(allowed_hosts="mu.example, 127.0.0.1")
    assert api.get(STUDIES, headers={"Host": "mu.example:443"}).status_code == 200
    assert api.get(STUDIES, headers={"Host": "localhost"}).status_code == 403


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:8400", 201),
        ("http://127.0.0.1:9999", 403),
        ("https://evil.example", 403),
        ("null", 403),
        ("http://127.0.0.1:8400.evil.example", 403),
        ("http://[", 403),
    ],
)
def test_other_sites_cannot_submit(api: Api, origin: str, status: int) -> None:
    response = api.post(STUDIES, json=build.document(), headers={"Origin": origin})
    assert response.status_code == status
    assert (api.rows() > 0) == (status == 201)


def test_without_the_token_nothing_is_read_or_written(make_api: Callable[..., Api]) -> None:
    api = make_api(token=SecretStr(TOKEN))
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}, {"Cookie": f"{COOKIE}=x"}):
        for path in ("/", STUDIES, "/api/v1/openapi.json", "/metrics"):
            response = api.get(path, headers=headers)
            assert response.status_code == 401, path
            assert response.headers["www-authenticate"] == "Bearer"
        assert api.post(STUDIES, json=build.document(), headers=headers).status_code == 401
    assert api.rows() == 0
    assert api.get("/healthz").status_code == 200
    assert api.get("/readyz").status_code == 200


def test_with_the_token_everything_works(make_api: Callable[..., Api]) -> None:
    api = make_api(token=SecretStr(TOKEN))
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert api.post(STUDIES, json=build.document(), headers=bearer).status_code == 201
    assert len(api.get(STUDIES, headers=bearer).json()["items"]) == 1
    assert api.get("/api/v1/whoami", headers=bearer).json()["id"] == "home"


def test_all_answers_carry_the_security_headers(refusing: Api) -> None:
    answers = [
        *(refusing.get(path) for path in ("/", STUDIES, "/nothing", "/healthz")),
        *(refusing.post(STUDIES, content=body) for body in (b"{", b"x" * (2 << 20))),
        refusing.get(STUDIES, headers={"Host": "evil.example"}),
    ]
    for answer in answers:
        for name, value in SECURITY_HEADERS.items():
            assert answer.headers[name] == value, answer.request.url
    policy = SECURITY_HEADERS["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:")


def test_a_bug_is_answered_without_its_details(make_api: Callable[..., Api], monkeypatch: pytest.MonkeyPatch) -> None:
    api = make_api(raise_bugs=False)

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr("service.studies.rendered.page_text", broken)
    with capture_logs() as logs:
        response = api.get(STUDIES)
    assert [entry["path"] for entry in logs if entry["event"] == "unhandled error"] == [STUDIES]
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert "secret" not in response.text
    assert response.headers["content-security-policy"] == SECURITY_HEADERS["Content-Security-Policy"]
