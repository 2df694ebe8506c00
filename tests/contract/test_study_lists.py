"""Lists of studies on both databases: every filter, every order, page by page."""

from collections.abc import Callable
import time

import pytest

from mutransfer.result import Outcome
from service.db import studies
from service.db.driver_store import DriverStore
from service.db.session import Sessions, reading, transact
from service.db.states import StudyState
from service.db.study_lists import Order, StudyFilter, find, place_of
from tests import study_builders as build
from tests.integration.api_fixtures import finish_study


def names(sessions: Sessions, order: Order = Order.OLDEST, **wanted: object) -> list[str]:
    with reading(sessions) as session:
        rows = find(session, StudyFilter(**wanted), order, after=None, limit=100)  # type: ignore[arg-type]
        return [row.name for row in rows]


@pytest.fixture
def some(submit: Callable[..., str], drive: Callable[[], DriverStore], sessions: Sessions) -> dict[str, str]:
    """Four studies, by name: the first is completed, the third is cancelled after the fourth came."""
    made = {}
    for name, project in (("Beta", "tests"), ("alpha_100", "vision"), ("beta", "tests"), ("gamma", "tests")):
        made[name] = submit(build.spec(name=name, project=project))
        if name == "Beta":
            finish_study(drive())
    transact(sessions, lambda session: studies.cancel(session, made["beta"]))
    return made


def test_filters(sessions: Sessions, some: dict[str, str]) -> None:
    assert names(sessions) == ["Beta", "alpha_100", "beta", "gamma"]
    assert names(sessions, state=StudyState.QUEUED) == ["alpha_100", "gamma"]
    assert names(sessions, project="vision") == ["alpha_100"]
    assert names(sessions, name="BET") == ["Beta", "beta"]
    assert names(sessions, name="a_1") == ["alpha_100"]
    assert names(sessions, name="_") == ["alpha_100"]  # no wildcards
    assert names(sessions, name="%") == []
    with reading(sessions) as session:
        result = studies.get(session, some["Beta"]).result
    outcomes = {arm["verdict"]["outcome"] for arm in result["arms"]} if result else set()
    assert len(outcomes) == 2
    for outcome in Outcome:
        assert names(sessions, verdict=outcome) == (["Beta"] if outcome.value in outcomes else [])


def test_times(sessions: Sessions, some: dict[str, str]) -> None:
    with reading(sessions) as session:
        rows = {name: studies.get(session, study) for name, study in some.items()}
        created = {name: row.created_at for name, row in rows.items()}
        updated = {name: row.updated_at for name, row in rows.items()}
    assert created["Beta"] < updated["Beta"]
    assert 0.0 <= updated["gamma"] - created["gamma"] < 1.0  # two readings of the clock in one statement
    assert updated["beta"] > created["gamma"]
    assert names(sessions, created_after=created["beta"]) == ["beta", "gamma"]
    assert names(sessions, created_before=created["alpha_100"]) == ["Beta", "alpha_100"]
    assert names(sessions, updated_after=updated["beta"]) == ["beta"]
    assert names(sessions, updated_before=updated["Beta"]) == ["Beta"]
    assert names(sessions, created_after=time.time() + 3600.0) == []


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (Order.NEWEST, ["gamma", "beta", "alpha_100", "Beta"]),
        (Order.UPDATED_LAST, ["beta", "gamma", "alpha_100", "Beta"]),
        (Order.UPDATED_FIRST, ["Beta", "alpha_100", "gamma", "beta"]),
        (Order.PROJECT, ["Beta", "beta", "gamma", "alpha_100"]),
        (Order.PROJECT_BACK, ["alpha_100", "gamma", "beta", "Beta"]),
        (Order.STATE, ["beta", "Beta", "alpha_100", "gamma"]),
    ],
)
def test_orders(sessions: Sessions, some: dict[str, str], order: Order, expected: list[str]) -> None:
    assert names(sessions, order) == expected


def test_pages_miss_nothing_and_repeat_nothing(sessions: Sessions, submit: Callable[..., str]) -> None:
    for number in range(7):
        submit(build.spec(name=f"name {number % 2}", project=f"p{number % 3}"))
    for order in Order:
        with reading(sessions) as session:
            whole = [row.id for row in find(session, StudyFilter(), order, after=None, limit=100)]
            paged, after = [], None
            while rows := find(session, StudyFilter(), order, after=after, limit=2):
                paged += [row.id for row in rows]
                after = place_of(rows[-1], order)
        assert len(set(paged)) == 7
        assert paged == whole, order
        if not order.is_descending:
            with reading(sessions) as session:
                back = find(session, StudyFilter(), Order(f"-{order}"), after=None, limit=100)
            assert [row.id for row in back] == whole[::-1]
