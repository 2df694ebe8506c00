"""What machines ask: alive, ready, how busy; and the log of each request."""

from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text, update
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from service.db.migrate import downgrade
from service.db.session import db_now, transact
from service.db.tables import LeaseRow, OutboxRow
from tests.integration.api_fixtures import STUDIES, Api, finish_study


def figures(api: Api) -> dict[str, float]:
    response = api.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    return {
        sample.name + "".join(f"{{{value}}}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def test_a_service_is_ready_when_its_database_is_of_this_version(api: Api) -> None:
    assert api.get("/readyz").json()["status"] == "ok"
    api.sessions.kw["bind"].dispose()
    downgrade(api.settings.database_url, "-1")
    response = api.get("/readyz")
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert "mutransfer db upgrade" in response.json()["detail"]
    assert api.get("/healthz").status_code == 200
    with api.sessions.begin() as session:
        session.execute(text("DROP TABLE alembic_version"))
    assert "at revision None" in api.get("/readyz").json()["detail"]


def test_the_figures_of_a_quiet_service_are_zero(api: Api) -> None:
    found = figures(api)
    assert found["mutransfer_database_up"] == 1
    assert {name: value for name, value in found.items() if value} == {"mutransfer_database_up": 1}


def test_the_figures_follow_what_happens(api: Api) -> None:
    api.submit()
    api.submit()
    busy = figures(api)
    assert (busy["mutransfer_queue_depth"], busy["mutransfer_studies{queued}"]) == (2, 2)
    assert busy["mutransfer_queue_oldest_seconds"] > 0
    store = api.drive()
    store.mark_running()
    half = update(LeaseRow).where(LeaseRow.epoch > 0).values(expires_at=db_now() + 20.0)  # of 30 s: renewed 10 s ago
    transact(api.sessions, lambda session: session.execute(half))
    driven = figures(api)
    assert (driven["mutransfer_queue_depth"], driven["mutransfer_leases_held"]) == (1, 1)
    assert 10.0 <= driven["mutransfer_lease_age_seconds"] < 20.0
    transact(api.sessions, lambda session: session.execute(update(LeaseRow).values(expires_at=db_now() - 5.0)))
    late = figures(api)
    assert (late["mutransfer_leases_held"], late["mutransfer_leases_expired"]) == (0, 1)
    assert late["mutransfer_lease_age_seconds"] >= 35.0
    assert api.post(f"{STUDIES}/{store.study().id}/pause").status_code == 200
    assert figures(api)["mutransfer_leases_expired"] == 1  # of a study that is pausing: nobody lets go of its trials


def test_the_figures_count_trials_and_what_waits_to_be_told(api: Api) -> None:
    api.submit()
    finish_study(api.drive())
    past = update(OutboxRow).values(created_at=db_now() - 60.0)
    transact(api.sessions, lambda session: session.execute(past))
    found = figures(api)
    assert found["mutransfer_trials_done_total"] > 30
    assert found["mutransfer_device_seconds_total"] > 0
    assert found["mutransfer_outbox_pending"] > 30
    assert 60.0 <= found["mutransfer_outbox_lag_seconds"] < 120.0
    transact(api.sessions, lambda session: session.execute(update(OutboxRow).values(done_at=db_now())))
    told = figures(api)
    assert (told["mutransfer_outbox_pending"], told["mutransfer_outbox_lag_seconds"]) == (0, 0)


def test_without_a_database_the_figures_say_so(api: Api) -> None:
    database = api.settings.home / "mutransfer.db"
    api.sessions.kw["bind"].dispose()
    for leftover in database.parent.glob("mutransfer.db*"):
        leftover.unlink()
    database.mkdir()
    api.app.state.doorkeeper._looked_at = float("inf")  # type: ignore[attr-defined]  # the door is known to be open
    assert figures(api) == {"mutransfer_database_up": 0}


def test_every_line_of_a_request_says_whose_it_is(api: Api) -> None:
    study = api.submit()
    with capture_logs(processors=[merge_contextvars]) as lines:
        api.get(f"{STUDIES}/{study}/trials/{'a' * 64}?token=secret", headers={"X-Request-ID": "r-7"})
    assert [(line["request_id"], line["study"], line["trial"], line["status"], line["actor"]) for line in lines] == [
        ("r-7", study, "a" * 64, 404, "local")
    ]
    assert "secret" not in str(lines)
