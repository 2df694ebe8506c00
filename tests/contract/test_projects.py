"""Projects: made once, limited, seen by whom they concern."""

from collections.abc import Callable

import pytest

from mutransfer.errors import AccessError, NotFoundError, SpecError
from service.db import audit, projects, studies
from service.db.actors import Actor, acting
from service.db.audit import AuditFilter
from service.db.session import Sessions, reading, transact
from service.db.states import Scope
from service.db.tables_access import DEFAULT_PROJECT
from tests import study_builders as build

TESTS = build.spec().project
SUBMITTER = Actor(id="tk_1", name="laptop", scope=Scope.SUBMIT, request_id="r-1")
BOUND = Actor(id="tk_2", scope=Scope.ADMIN, project="vision")


def _names(sessions: Sessions) -> list[str]:
    with reading(sessions) as session:
        return [row.name for row in projects.page(session, after=None, limit=10)]


def test_the_default_project_is_there(sessions: Sessions) -> None:
    assert _names(sessions) == [DEFAULT_PROJECT]


def test_a_project_is_made_once_and_its_limits_change_one_by_one(sessions: Sessions) -> None:
    row, is_new = transact(sessions, lambda session: projects.put(session, "vision", {"device_hours": 2.5}))
    assert (is_new, row.device_hours, row.max_concurrent_trials) == (True, 2.5, None)
    row, is_new = transact(sessions, lambda session: projects.put(session, "vision", {"max_concurrent_trials": 4}))
    assert (is_new, row.device_hours, row.max_concurrent_trials) == (False, 2.5, 4)
    transact(sessions, lambda session: projects.put(session, "vision", {"max_concurrent_trials": 4}))
    with reading(sessions) as session:
        entries = audit.page(session, AuditFilter(project="vision"), limit=10)
    assert [(entry.action, entry.details) for entry in entries] == [
        ("project.set", {"max_concurrent_trials": 4}), ("project.create", {"device_hours": 2.5}),
    ]  # fmt: skip


def test_who_may_make_projects_makes_one_by_naming_it_in_a_study(
    sessions: Sessions, submit: Callable[..., str]
) -> None:
    spec = build.spec(project="vision")
    with acting(SUBMITTER), pytest.raises(SpecError, match="mutransfer project set vision"):
        submit(spec)
    assert _names(sessions) == [DEFAULT_PROJECT]
    submit(spec)
    assert _names(sessions) == [DEFAULT_PROJECT, "vision"]
    with acting(SUBMITTER):
        submit(spec)


def test_a_bound_caller_sees_and_uses_its_project_only(sessions: Sessions, submit: Callable[..., str]) -> None:
    submit(build.spec(project="vision"))
    with acting(BOUND):
        assert _names(sessions) == ["vision"]
        with reading(sessions) as session, pytest.raises(NotFoundError, match=DEFAULT_PROJECT):
            projects.get(session, DEFAULT_PROJECT)
        with pytest.raises(AccessError, match="bound to the project vision"):
            submit(build.spec())
        submit(build.spec(project="vision"))


def test_a_change_is_told_with_the_caller_and_a_refused_one_is_not(
    sessions: Sessions, submit: Callable[..., str]
) -> None:
    transact(sessions, lambda session: projects.ensure(session, TESTS))
    with acting(SUBMITTER):
        study = submit()
        with pytest.raises(SpecError):
            submit(build.spec(project="unknown"))
        transact(sessions, lambda session: studies.cancel(session, study))
        transact(sessions, lambda session: studies.cancel(session, study))  # changes nothing
    with reading(sessions) as session:
        entries = audit.page(session, AuditFilter(), limit=10)
    assert [(e.action, e.target, e.actor, e.actor_name, e.request_id, e.project) for e in entries] == [
        (action, study, "tk_1", "laptop", "r-1", TESTS) for action in ("study.cancel", "study.submit")
    ]
