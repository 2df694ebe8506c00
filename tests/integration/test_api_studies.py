from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

from mutransfer.recipe import Recipe
from mutransfer.result import StudyResult
from service.studies.schemas import CurvesRead, StudyPage, StudyRead, VerdictRead
from service.trials.schemas import TrialDetail, TrialPage
from tests import study_builders as build
from tests.integration.api_fixtures import STUDIES, Api, finish_study

EDGE = {"Content-Type": "application/yaml"}


def test_submit_as_json_and_as_yaml_means_the_same(api: Api) -> None:
    as_json = api.post(STUDIES, json=build.document())
    as_yaml = api.post(STUDIES, content=yaml.safe_dump(build.document()), headers=EDGE)
    assert (as_json.status_code, as_yaml.status_code) == (201, 201)
    first, second = StudyRead.model_validate(as_json.json()), StudyRead.model_validate(as_yaml.json())
    assert first.id != second.id
    assert first.digest == second.digest
    assert first.spec == build.spec()
    assert first.state == "queued"
    assert as_json.headers["location"] == f"{STUDIES}/{first.id}"
    assert first.trials_expected == api.post("/api/v1/plan", json=build.document()).json()["trials_expected"]
    assert StudyRead.model_validate(api.get(as_json.headers["location"]).json()) == first


def test_planning_writes_nothing(api: Api) -> None:
    response = api.post("/api/v1/plan", json=build.document())
    assert response.status_code == 200
    assert {curve["phase"] for curve in response.json()["curves"]} == {"search", "transfer", "verify"}
    assert response.json()["device_seconds_expected"] > 0
    assert api.rows() == 0


def test_the_same_key_and_study_make_one_study(api: Api) -> None:
    key = {"Idempotency-Key": "7b1c"}
    first = api.post(STUDIES, json=build.document(), headers=key)
    again = api.post(STUDIES, content=yaml.safe_dump(build.document()), headers=EDGE | key)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    assert len(api.get(STUDIES).json()["items"]) == 1


@pytest.mark.parametrize(
    ("changes", "query"), [({"name": "other"}, ""), ({"project": "other"}, ""), ({}, "?fresh=true")]
)
def test_the_same_key_for_another_request_is_a_conflict(api: Api, changes: dict[str, str], query: str) -> None:
    key = {"Idempotency-Key": "7b1c"}
    first = api.post(STUDIES, json=build.document(), headers=key).json()["id"]
    rows = api.rows()
    other = api.post(STUDIES + query, json=build.document(**changes), headers=key)
    assert other.status_code == 409
    assert first in other.json()["detail"]
    assert api.rows() == rows


def test_many_submissions_with_one_key_at_once_make_one_study(api: Api) -> None:
    def submit(_index: int) -> tuple[int, str]:
        response = api.post(STUDIES, json=build.document(), headers={"Idempotency-Key": "together"})
        return response.status_code, response.json()["id"]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(submit, range(16)))
    assert sorted(status for status, _ in answers) == [200] * 15 + [201]
    assert len({study_id for _, study_id in answers}) == 1


def test_a_fresh_study_has_a_nonce_of_its_own(api: Api) -> None:
    nonces = []
    for query in ("", "?fresh=true", "?fresh=true"):
        assert api.post(STUDIES + query, json=build.document()).status_code == 201
        nonces.append(api.drive().study().nonce)
    assert nonces[0] == ""
    assert len(set(nonces)) == 3


def test_studies_are_listed_newest_first_page_by_page(api: Api) -> None:
    ids = [api.submit(project=("even", "odd")[index % 2]) for index in range(7)]
    seen: list[str] = []
    query = "?limit=3"
    while True:
        page = StudyPage.model_validate(api.get(STUDIES + query).json())
        seen += [study.id for study in page.items]
        if page.next_cursor is None:
            break
        api.submit()  # what comes in meanwhile neither repeats nor hides what was there
        query = f"?limit=3&cursor={page.next_cursor}"
    assert sorted(ids) == sorted(seen)
    assert seen == sorted(seen, reverse=True)
    assert [s["id"] for s in api.get(STUDIES + "?project=odd").json()["items"]] == [ids[5], ids[3], ids[1]]
    api.post(f"{STUDIES}/{ids[0]}/cancel")
    assert [s["id"] for s in api.get(STUDIES + "?state=cancelled").json()["items"]] == [ids[0]]


def test_a_queued_study_is_cancelled_at_once(api: Api) -> None:
    study_id = api.submit()
    first = api.post(f"{STUDIES}/{study_id}/cancel")
    assert (first.status_code, first.json()["state"]) == (200, "cancelled")
    assert first.json()["finished_at"] is not None
    assert api.post(f"{STUDIES}/{study_id}/cancel").json()["state"] == "cancelled"


def test_a_running_study_is_cancelled_through_its_driver(api: Api) -> None:
    study_id = api.submit()
    store = api.drive()
    store.mark_running()
    assert api.post(f"{STUDIES}/{study_id}/cancel").json()["state"] == "cancelling"
    assert store.cancel_requested()
    store.finish("cancelled", result=None)
    assert api.get(f"{STUDIES}/{study_id}").json()["state"] == "cancelled"


def test_an_ended_study_cannot_be_cancelled(api: Api) -> None:
    study_id = api.submit()
    finish_study(api.drive())
    response = api.post(f"{STUDIES}/{study_id}/cancel")
    assert (response.status_code, response.json()["title"]) == (409, "Conflict")
    assert api.get(f"{STUDIES}/{study_id}").json()["state"] == "completed"


def test_a_finished_study_in_all_its_parts(api: Api) -> None:
    study_id = api.submit()
    finish_study(api.drive())
    here = f"{STUDIES}/{study_id}"
    study = StudyRead.model_validate(api.get(here).json())
    assert (study.state, study.phase, study.trials_done, study.trials_planned) == ("completed", "transfer", 44, 44)
    assert study.device_seconds == 44 * 1.5
    result = StudyResult.model_validate(api.get(f"{here}/result").json())
    assert [arm.name for arm in result.arms] == ["adamw-sp", "adamw-mup"]
    assert result.study.state == "completed"
    assert result.cost.trials == 44
    curves = CurvesRead.model_validate(api.get(f"{here}/curves").json())
    assert [len(arm.curves) for arm in curves.arms] == [2, 2]
    assert len(curves.arms[0].curves[0].points) == 11
    verdict = VerdictRead.model_validate(api.get(f"{here}/verdict").json())
    assert verdict.final
    assert verdict.arms[1].verdict.recorded_lr_octaves == -5.5


def test_a_running_study_is_judged_over_what_has_finished(api: Api) -> None:
    study_id = api.submit()
    store = api.drive()
    store.mark_running()
    build.run_phase(store, "search", [(build.planned(build.spec(), lr=lr), build.result(2.0)) for lr in (-6.0, -5.0)])
    here = f"{STUDIES}/{study_id}"
    verdict = VerdictRead.model_validate(api.get(f"{here}/verdict").json())
    assert not verdict.final
    assert {arm.verdict.outcome for arm in verdict.arms} == {"inconclusive"}
    first = api.get(f"{here}/result")
    assert first.json()["cost"]["trials"] == 2
    assert api.get(f"{here}/result").content == first.content
    build.run_phase(store, "search", [(build.planned(build.spec(), lr=-4.0), build.result(2.2))])
    assert api.get(f"{here}/result").json()["cost"]["trials"] == 3


def test_trials_are_listed_page_by_page_and_shown_in_full(api: Api) -> None:
    study_id = api.submit()
    finish_study(api.drive())
    here = f"{STUDIES}/{study_id}/trials"
    seen, query = [], "?limit=10"
    while query is not None:
        page = TrialPage.model_validate(api.get(here + query).json())
        assert len(page.items) <= 10
        seen += page.items
        query = f"?limit=10&cursor={page.next_cursor}" if page.next_cursor else None
    places = [(t.arm, t.axis_value, t.lr_octaves, t.seed) for t in seen]
    assert len(set(places)) == 44
    assert places == sorted(places)
    first = seen[0]
    assert (first.status, first.phases, first.step, first.width, first.depth) == ("finished", ("search",), 10, 16, 2)
    detail = TrialDetail.model_validate(api.get(f"{here}/{first.key}").json())
    assert detail.result is not None
    assert [point.step for point in detail.result.history] == [5, 10]
    assert detail.spec.lr_octaves == first.lr_octaves
    assert api.get(f"{here}/{'0' * 32}").status_code == 404


def test_a_recipe_in_every_form(api: Api) -> None:
    study_id = api.submit()
    finish_study(api.drive())
    here = f"{STUDIES}/{study_id}/recipe?width=4096"
    recipe = Recipe.model_validate(api.get(here).json())
    assert (recipe.width, recipe.arm, recipe.extrapolated) == (4096, "adamw-mup", True)
    assert Recipe.model_validate(yaml.safe_load(api.get(f"{here}&format=yaml").text)) == recipe
    python = api.get(f"{here}&format=python")
    assert python.headers["content-type"].startswith("text/x-python")
    compile(python.text, "recipe.py", "exec")
    assert "| role" in api.get(f"{here}&format=markdown").text.lower()
    assert api.get(f"{here}&arm=adamw-sp").json()["arm"] == "adamw-sp"
    assert api.get(f"{here}&arm=nobody").status_code == 404
    indivisible = api.get(f"{STUDIES}/{study_id}/recipe?width=4097")
    assert (indivisible.status_code, indivisible.json()["errors"][0]["field"]) == (422, "width")


def test_a_recipe_before_the_study_has_started_is_a_conflict(api: Api) -> None:
    response = api.get(f"{STUDIES}/{api.submit()}/recipe?width=64")
    assert response.status_code == 409
    assert "not started" in response.json()["detail"]


def test_an_unchanged_document_is_not_sent_again(api: Api) -> None:
    here = f"{STUDIES}/{api.submit()}"
    first = api.get(here)
    tag = {"If-None-Match": first.headers["etag"]}
    again = api.get(here, headers=tag)
    assert (again.status_code, again.content) == (304, b"")
    api.post(f"{here}/cancel")
    changed = api.get(here, headers=tag)
    assert (changed.status_code, changed.json()["state"]) == (200, "cancelled")


def test_health_and_schemas(api: Api) -> None:
    assert api.get("/healthz").json()["status"] == "ok"
    assert api.get("/api/v1/schema/study").json()["title"] == "StudySpec"
    assert api.get("/api/v1/schema/result").json()["title"] == "StudyResult"
