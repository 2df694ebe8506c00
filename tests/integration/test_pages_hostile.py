"""Addresses that nobody meant, on both databases: every page and list answers them, never with a fault of its own."""

from urllib.parse import quote

from fastapi import FastAPI
from fastapi.routing import RouteContext
import pytest

from service import cursors
from service.auth import scopes
from service.studies.listing import StudyQuery
from tests.integration.api_fixtures import STUDIES, Api, places

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
def test_no_address_is_a_fault_of_the_service(lived_in: Api, text: str) -> None:
    known, addresses = places(lived_in), []
    for route in reads(lived_in):
        names = [found.alias for found in route.dependant.path_params]
        path = route.path.replace(":path", "")
        right = {name: known.get(name, "x") for name in names}
        wrong = [right | {name: text} for name in names]
        addresses += [path.format(**some) for some in wrong]
        addresses += [f"{path.format(**right)}?{name}={text}" for name in queries(route)]
    assert len(addresses) > 100
    assert faults(lived_in, addresses) == []


def test_no_forged_cursor_is_a_fault_of_the_service(lived_in: Api) -> None:
    known, addresses = places(lived_in), []
    for route in reads(lived_in):
        if "cursor" in queries(route):
            path = route.path.format(**{found.alias: known[found.alias] for found in route.dependant.path_params})
            addresses += [f"{path}?cursor={quote(cursors.encode(position))}" for position in FORGED]
    assert len(addresses) > 6 * len(FORGED)
    assert faults(lived_in, addresses) == []


@pytest.mark.parametrize(
    ("path", "position"),
    [
        ("studies/{study_id}/trials", ["a", 2**31, 0.0, 0]), ("studies/{study_id}/trials", ["a", 16, 0.0, 2**63]),
        ("schedules/nightly/nights", [BEYOND]), ("deliveries", [BEYOND]), ("audit-log", [BEYOND]), ("tokens", ["\0"]),
    ],
)  # fmt: skip
def test_a_cursor_that_no_column_holds_is_refused(lived_in: Api, path: str, position: list[object]) -> None:
    address = f"/api/v1/{path.format(**places(lived_in))}?cursor={cursors.encode(position)}"
    answer = lived_in.get(address)
    assert answer.status_code == 422
    assert [problem["field"] for problem in answer.json()["errors"]] == ["cursor"]


def test_pages_take_a_number_that_no_column_holds_for_none(lived_in: Api) -> None:
    known = places(lived_in)
    for address in ("/schedules/nightly?night={0}", "/schedules/nightly?before={0}", "/studies/{1}/trials?size={2}"):
        beyond = address.format(2**63, known["study_id"], 2**31)
        assert lived_in.get(beyond).text.count("<tr") == lived_in.get(beyond.partition("?")[0]).text.count("<tr")
    image = f"{STUDIES}/{known['study_id']}/figures/training?size={2**31}"
    assert [problem["field"] for problem in lived_in.get(image).json()["errors"]] == ["size"]
