"""Bodies that are documents, and hold what no column does: each is answered, and what is refused writes nothing."""

from collections.abc import Iterator
from copy import deepcopy
import json
from typing import Any

from fastapi import FastAPI
import httpx
import pytest
from sqlalchemy import func, select

from service.db.base import Base
from service.db.session import reading
from tests import study_builders as build
from tests.integration.api_fixtures import Api, places

JSON = {"Content-Type": "application/json"}
NESTED: list[Any] = []
for _ in range(300):
    NESTED = [NESTED]
#: By name, what stands where something else was meant.
HOSTILE = {
    "beyond int64": 2**63, "beyond float64": 10**400, "negative": -1, "infinite": float("inf"),
    "not a number": float("nan"), "NUL": "a\0b", "half a character": "\ud800", "long": "x" * 5000, "empty": "",
    "null": None, "mapping": {"\0": "\ud800"}, "nested": NESTED,
}  # fmt: skip
SCHEDULE = {"cron": "30 2 * * *", "time_zone": "UTC", "study": build.document(), "baseline": {"policy": "first"}}
#: The first token closes the service to those without one.
CLOSES = "POST /api/v1/tokens"
#: By operation, a body that is accepted, in an order in which all are.
BODIES: dict[str, dict[str, Any]] = {
    "POST /api/v1/studies": build.document(project="default"),
    "POST /api/v1/plan": build.document(),
    "POST /api/v1/studies/{study_id}/clone": build.document(),
    "POST /api/v1/schedules": {"name": "another", **SCHEDULE, "paused": False, "sensitivity": {}},
    "PATCH /api/v1/schedules/{schedule}": {"name": "nightly", **SCHEDULE},
    "PUT /api/v1/schedules/{schedule}/baseline": {"study": ""},
    "POST /api/v1/channels": {
        "name": "ops", "project": "tests", "kind": "webhook", "target": "https://hooks.example/x",
        "schedule": "nightly", "events": ["flagged"], "secret": "s" * 20,
    },
    CLOSES: {"name": "t", "scope": "read", "project": "default", "expires_in_days": 3.0},
    "PUT /api/v1/projects/{name}": {"max_concurrent_trials": 3, "device_hours": 5.0},
    "POST /api/v1/studies/{study_id}/extend": {"widths": {"targets": [64, 128]}, "search": {"seeds": {"max": 8}}},
    "PATCH /api/v1/studies/{study_id}": {"priority": 1},
}  # fmt: skip


def paths(document: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a value stands in a document, containers too."""
    if at:
        yield at
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document if isinstance(document, list) else ())
    )
    for place, value in inner:
        yield from paths(value, (*at, place))


def with_value(document: Any, path: tuple[Any, ...], value: Any) -> str:
    """The document's text with another value at `path`."""
    changed = deepcopy(document)
    inner = changed
    for place in path[:-1]:
        inner = inner[place]
    inner[path[-1]] = value
    return json.dumps(changed)


def rows(api: Api) -> int:
    """Rows of all tables."""
    with reading(api.sessions) as session:
        tables = Base.metadata.sorted_tables
        return sum(session.scalar(select(func.count()).select_from(table)) or 0 for table in tables)


def send(api: Api, operation: str, text: str) -> httpx.Response:
    """The answer."""
    method, _, path = operation.partition(" ")
    return api.request(method, path.format(**places(api), name="one"), content=text, headers=JSON)


def test_the_bodies_are_all_that_there_are_and_are_accepted(lived_in: Api) -> None:
    assert isinstance(lived_in.app, FastAPI)
    described = {
        f"{method.upper()} {path}"
        for path, operations in lived_in.app.openapi()["paths"].items()
        for method, operation in operations.items()
        if "requestBody" in operation
    }
    assert described == set(BODIES)
    pinned = {"study": places(lived_in)["study_id"]}
    refused = {}
    for operation, body in BODIES.items():
        answer = send(lived_in, operation, json.dumps(pinned if operation.endswith("baseline") else body))
        if not answer.is_success and operation != CLOSES:
            refused[operation] = answer.text
    assert refused == {}


@pytest.mark.parametrize("operation", BODIES)
def test_no_body_is_a_fault_of_the_service(lived_in: Api, operation: str) -> None:
    method, _, path = operation.partition(" ")
    address, body = path.format(**places(lived_in), name="one"), BODIES[operation]
    faults, written = [], rows(lived_in)
    for at in paths(body):
        for name, value in HOSTILE.items():
            answer = lived_in.request(method, address, content=with_value(body, at, value), headers=JSON)
            if answer.is_success:
                written = rows(lived_in)
            elif answer.status_code >= 500:
                faults.append(f"{answer.status_code} {at} {name}")
        if rows(lived_in) != written:
            faults.append(f"{at}: a refused request wrote a row")
    assert faults == []
