"""Addresses that nobody meant, on both databases: every page and list answers them, never with a fault of its own."""

from collections.abc import Iterator
from urllib.parse import quote

from fastapi import FastAPI
from fastapi.routing import RouteContext
import pytest

from service import cursors
from service.auth import scopes
from service.db.migrate import upgrade
from service.settings import Settings
from service.studies.listing import StudyQuery
from tests import study_builders as build
from tests.integration.api_fixtures import STUDIES, Api, finish_study
from tests.postgres_server import PostgresServer, database_factory, drop_databases

BEYOND = 10**30  # every integer column
#: By name, text as it stands in an address.
HOSTILE = {
    "beyond int32": "999999999999", "beyond int64": "99999999999999999999", "digits": "9" * 5000, "negative": "-1",
    "infinite": "1e999", "not a number": "nan", "NUL": "%00", "no UTF-8": "%ED%A0%80", "long": "x" * 5000,
    "place": f"a:{'9' * 30}:0:0", "place of NUL": "%00:1:0:0", "arm of NUL": "st_01KAMRQ4ZJ5T2V8Y6W3X7B9CDE:%00",
}  # fmt: skip
#: A cursor of each kind that lists give out, but for the place that it names.
FORGED = [
    [BEYOND], [-BEYOND], ["a\0b"], ["\ud800"], ["a", BEYOND, 0.0, 0], ["a", 2**31, 0.0, 0], ["a", 16, 0.0, BEYOND],
    ["a\0", 16, 0.0, 0], ["\ud800", 16, 0.0, 0], ["a", 16, float("inf"), 0], ["-created", "\0", "\0"],
    ["-updated", float("inf"), "\ud800"], ["-updated", float("nan"), "st"], ["name", "\ud800", "st"],
]  # fmt: skip
STREAM = "/events"


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A service with a completed study and a schedule that has a night; faults are answered, not raised."""
    created: list[str] = []
    home, url = tmp_path_factory.mktemp("hostile"), ""
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        url = database_factory(server, created)()
    settings = Settings(home=home, working_dir=home, database_url=url, rate_limit=1e6).prepare_home()
    upgrade(settings.database_url)
    with Api(settings, raise_bugs=False) as api:
        api.submit()
        finish_study(api.drive())
        schedule = {"name": "nightly", "cron": "30 2 * * *", "time_zone": "UTC", "study": build.document()}
        assert api.post("/api/v1/schedules", json=schedule).status_code == 201
        assert api.post("/api/v1/schedules/nightly/run").is_success
        yield api
    if created:
        drop_databases(request.getfixturevalue("postgres_server"), created)


def places(api: Api) -> dict[str, str]:
    """What stands for each parameter of a path where it is not the hostile one."""
    study = api.get(f"{STUDIES}?sort=created").json()["items"][0]["id"]
    trial = api.get(f"{STUDIES}/{study}/trials").json()["items"][0]["key"]
    return {"study_id": study, "key": trial, "trial": trial, "schedule": "nightly", "night": "1", "kind": "md"}


def reads(api: Api) -> list[RouteContext]:
    """Every route that reads and answers at once."""
    assert isinstance(api.app, FastAPI)
    found = [
        route for route in scopes.routes(api.app) if "GET" in (route.methods or ()) and hasattr(route, "dependant")
    ]
    return [route for route in found if not route.path.endswith(STREAM)]


def queries(route: RouteContext) -> list[str]:
    """The names of its query parameters; the list of studies has a model of them."""
    names = [found.alias for found in route.dependant.query_params]
    return list(StudyQuery.model_fields) if route.path == STUDIES else names


def faults(api: Api, addresses: list[str]) -> list[str]:
    """Those answered with a fault of the service, shortened."""
    answers = ((address, api.get(address, follow_redirects=False).status_code) for address in addresses)
    return [f"{status} {address[:200]}" for address, status in answers if status >= 500]


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_no_address_is_a_fault_of_the_service(service: Api, text: str) -> None:
    known, addresses = places(service), []
    for route in reads(service):
        names = [found.alias for found in route.dependant.path_params]
        path = route.path.replace(":path", "")
        right = {name: known.get(name, "x") for name in names}
        wrong = [right | {name: text} for name in names]
        addresses += [path.format(**some) for some in wrong]
        addresses += [f"{path.format(**right)}?{name}={text}" for name in queries(route)]
    assert len(addresses) > 100
    assert faults(service, addresses) == []


def test_no_forged_cursor_is_a_fault_of_the_service(service: Api) -> None:
    known, addresses = places(service), []
    for route in reads(service):
        if "cursor" in queries(route):
            path = route.path.format(**{found.alias: known[found.alias] for found in route.dependant.path_params})
            addresses += [f"{path}?cursor={quote(cursors.encode(position))}" for position in FORGED]
    assert len(addresses) > 6 * len(FORGED)
    assert faults(service, addresses) == []


@pytest.mark.parametrize(
    ("path", "position"),
    [
        ("studies/{study_id}/trials", ["a", 2**31, 0.0, 0]), ("studies/{study_id}/trials", ["a", 16, 0.0, 2**63]),
        ("schedules/nightly/nights", [BEYOND]), ("deliveries", [BEYOND]), ("audit-log", [BEYOND]), ("tokens", ["\0"]),
    ],
)  # fmt: skip
def test_a_cursor_that_no_column_holds_is_refused(service: Api, path: str, position: list[object]) -> None:
    address = f"/api/v1/{path.format(**places(service))}?cursor={cursors.encode(position)}"
    answer = service.get(address)
    assert answer.status_code == 422
    assert [problem["field"] for problem in answer.json()["errors"]] == ["cursor"]


def test_pages_take_a_number_that_no_column_holds_for_none(service: Api) -> None:
    known = places(service)
    for address in ("/schedules/nightly?night={0}", "/schedules/nightly?before={0}", "/studies/{1}/trials?size={2}"):
        beyond = address.format(2**63, known["study_id"], 2**31)
        assert service.get(beyond).text.count("<tr") == service.get(beyond.partition("?")[0]).text.count("<tr")
    image = f"{STUDIES}/{known['study_id']}/figures/training?size={2**31}"
    assert [problem["field"] for problem in service.get(image).json()["errors"]] == ["size"]
