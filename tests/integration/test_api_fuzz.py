"""Studies with anything anywhere: every answer is a plan or a problem document, soon, and nothing is written."""

import json
import time
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import study_builders as build
from tests.integration.api_fixtures import STUDIES, Api

FULL: dict[str, Any] = build.spec().model_dump(mode="json")
NUMBERS = st.one_of(
    st.integers(-5, 5), st.integers(), st.floats(), st.sampled_from([0, 1, 2**31, 2**53, 10**30, -0.0, 1e308, 1e-308])
)
WORDS = st.one_of(
    st.text(max_size=20), st.sampled_from(["auto", "mup", "muon", "text:/", "a.b:c", "../..", "nan", "\0", "\ud800"])
)
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, WORDS)
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3), max_leaves=6
)


def _paths(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(found for key, child in children for found in _paths(child, (*path, key)))]


def _replaced(node: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = node.copy()
    copy[path[0]] = _replaced(node[path[0]], path[1:], value)
    return copy


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(_paths(FULL)), ANYTHING), min_size=1, max_size=3))
def test_no_study_breaks_the_service(refusing: Api, changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    document: Any = FULL
    for path, value in changes:
        if path in _paths(document):
            document = _replaced(document, path, value)
    started = time.monotonic()
    response = refusing.post("/api/v1/plan", content=json.dumps(document), headers={"Content-Type": "application/json"})
    assert response.status_code in (200, 400, 422), response.text
    assert time.monotonic() - started < 20
    if response.status_code != 200:
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["detail"]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode), st.sampled_from(["json", "yaml"]))
def test_no_bytes_break_the_service(refusing: Api, body: bytes, form: str) -> None:
    response = refusing.post(STUDIES, content=body, headers={"Content-Type": f"application/{form}"})
    assert response.status_code in (400, 422), response.text
    assert response.headers["content-type"] == "application/problem+json"
