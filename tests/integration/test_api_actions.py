"""Actions over HTTP and through the typed client."""

import itertools
from typing import Any

import pytest

from mutransfer.errors import ConflictError, NotFoundError, SpecError
from service.client import Client
from service.db.session import reading
from service.db.tables import TrialRow
from service.studies.schemas import StudyRead
from tests import study_builders as build
from tests.integration.api_fixtures import ADDRESS, STUDIES, Api, fail_study, finish_study


class _Through(Client):
    """The client over the application in this process."""

    def __init__(self, api: Api) -> None:
        super().__init__(ADDRESS)
        self._http = api


@pytest.fixture
def client(api: Api) -> Client:
    return _Through(api)


def given_up(api: Api, study_id: str) -> str:
    """Run the study into the failure of one trial; returns its key."""
    key = fail_study(api.drive())
    assert api.get(f"{STUDIES}/{study_id}").json()["trials_failed"] == 1
    return key


def test_pause_resume_cancel_retry(api: Api, client: Client) -> None:
    study_id = api.submit()
    assert client.pause(study_id).state == "paused"
    assert client.resume(study_id).state == "queued"
    assert client.cancel(study_id).state == "cancelled"
    with pytest.raises(ConflictError, match="cancelled"):
        client.pause(study_id)
    assert client.retry(study_id).revision == 2
    assert client.get(study_id).state == "queued"


def test_a_failed_trial_is_retried(api: Api, client: Client) -> None:
    study_id = api.submit()
    key = given_up(api, study_id)
    read = client.retry_trial(study_id, key)
    assert (read.state, read.revision, read.trials_failed) == ("queued", 2, 0)
    with reading(api.sessions) as session:
        row = session.get_one(TrialRow, key)
        assert (row.status, row.attempts) == ("planned", 0)
    with pytest.raises(NotFoundError):
        client.retry_trial(study_id, "abc")


def test_priorities_are_submitted_and_changed_within_bounds(api: Api, client: Client) -> None:
    study = client.submit(build.document(), priority=3)
    assert study.priority == 3
    assert client.set_priority(study.id, 100).priority == 100
    with pytest.raises(SpecError, match="priority"):
        client.set_priority(study.id, 101)
    assert api.patch(f"{STUDIES}/{study.id}", json={"name": "other"}).status_code == 422
    assert api.post(f"{STUDIES}?priority=1000", json=build.document()).status_code == 422


def test_an_ended_study_is_extended(api: Api, client: Client) -> None:
    study_id = api.submit()
    finish_study(api.drive())
    before = client.get(study_id)
    after = client.extend(study_id, {"widths": {"targets": [64, 128]}})
    assert (after.state, after.revision) == ("queued", 2)
    assert after.spec.widths.targets == (64, 128)
    assert (after.trials_expected or 0) > (before.trials_expected or 0)
    assert after.trials_done == before.trials_done
    assert client.result(study_id).study.state == "queued"  # judged over what has finished so far
    listed = client.list().items[0]
    assert (listed.state, listed.spec) == ("queued", after.spec)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"train": {"steps": 5}}, "train.steps"),
        ({"widths": {"targets": [9]}}, "widths.targets"),
        ({"colour": "red"}, "colour"),
        ({}, ""),
    ],
)
def test_an_extension_that_asks_another_question_is_refused(api: Api, changes: Any, field: str) -> None:
    study_id = api.submit()
    finish_study(api.drive())
    before = api.get(f"{STUDIES}/{study_id}").text
    answer = api.post(f"{STUDIES}/{study_id}/extend", json=changes)
    assert answer.status_code == 422, answer.text
    assert field in [error["field"] for error in answer.json()["errors"]]
    assert api.get(f"{STUDIES}/{study_id}").text == before


def test_a_clone_is_a_study_of_its_own_made_once_per_key(api: Api, client: Client) -> None:
    study_id = api.submit()
    clone = client.clone(study_id, "name: other\ntrain: {steps: 20}\n", idempotency_key="k", priority=2)
    again = client.clone(study_id, "name: other\ntrain: {steps: 20}\n", idempotency_key="k", priority=2)
    assert clone.id == again.id != study_id
    assert (clone.name, clone.spec.train.steps, clone.priority) == ("other", 20, 2)
    assert client.clone(study_id).digest == client.get(study_id).digest
    with pytest.raises(SpecError, match="unknown field"):
        client.clone(study_id, {"colour": "red"})


def test_a_clone_is_checked_as_a_submission_is(api: Api) -> None:
    study_id = api.submit()
    rows = api.rows()
    answer = api.post(f"{STUDIES}/{study_id}/clone", json={"data": {"source": "text:/etc/passwd"}})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "data.source"
    assert api.rows() == rows


@pytest.mark.parametrize("body", [b"[1]", b"{", b"\xff", b"a: &a [*a]"])
def test_changes_that_are_no_mapping_are_refused(api: Api, body: bytes) -> None:
    study_id = api.submit()
    for action in ("extend", "clone"):
        answer = api.post(f"{STUDIES}/{study_id}/{action}", content=body)
        assert answer.status_code in (400, 422), answer.text


@pytest.mark.parametrize(
    "body", ["name: 2026-11-22", "widths: {targets: [2026-11-22]}", "a: !!binary aGk=", "a: !!set {x, y}", "1: 2\na: 3"]
)
def test_changes_that_json_cannot_say_are_refused_with_and_without_a_key(api: Api, body: str) -> None:
    study_id = api.submit()
    finish_study(api.drive())
    for action, key in itertools.product(("extend", "clone"), ({}, {"Idempotency-Key": "k"})):
        headers = {"Content-Type": "application/yaml"} | key
        answer = api.post(f"{STUDIES}/{study_id}/{action}", content=body, headers=headers)
        assert answer.status_code == 422, answer.text
        assert answer.json()["errors"]


def test_a_watch_begun_at_the_first_event_outlives_an_earlier_end(api: Api) -> None:
    study_id = api.submit()
    finish_study(api.drive())
    reopened = api.post(f"{STUDIES}/{study_id}/extend", json={"search": {"seeds": {"max": 2}}})
    assert StudyRead.model_validate(reopened.json()).state == "queued"
    api.post(f"{STUDIES}/{study_id}/cancel")
    with api.stream("GET", f"{STUDIES}/{study_id}/events") as response:
        kinds = [line.removeprefix("event: ") for line in response.iter_lines() if line.startswith("event: ")]
    assert kinds.count("finished") == 2
    assert kinds[-1] == "finished"


def test_a_plan_says_what_is_known_already(api: Api, client: Client) -> None:
    none = client.plan(build.document()).reuse
    assert (none.trials_known, none.basis) == (0, None)
    assert "no study has run on these data" in none.note
    study_id = api.submit()
    finish_study(api.drive())
    reuse = client.plan(build.document()).reuse
    assert reuse.basis == study_id
    assert 0 < reuse.trials_known < reuse.trials_total
    assert reuse.device_seconds_saved > 0.0
    wider = client.plan(build.document(widths__targets=[64, 128])).reuse
    assert wider.trials_known == reuse.trials_known
    assert wider.trials_total > reuse.trials_total
    assert client.plan(build.document(train__steps=20)).reuse.trials_known == 0
    assert client.plan(build.document(data__tokenizer="bytes")).reuse.basis is None
    fresh = client.plan(build.document(), fresh=True).reuse
    assert (fresh.trials_known, fresh.note) == (0, "every trial runs anew")
