"""`GET /trials/{key}/log` and `mutransfer logs TRIAL`: why a trial failed, in which studies, and who is told."""

from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from mutransfer.errors import NotFoundError
from service.cli import app
from service.db.actors import Actor, acting
from service.db.session import reading
from service.db.trial_logs import find
from service.trials.schemas import TrialLogRead
from tests import study_builders as build
from tests.integration.api_fixtures import Api, served

LOG = "/api/v1/trials/{key}/log"


@pytest.fixture
def failed(api: Api) -> str:
    """A trial that one study gave up and another finished; its key."""
    trial = build.planned(build.spec())
    for number in range(2):
        api.submit(project="first" if number == 0 else "second")
        store = api.drive()
        store.begin_phase("search")
        store.plan_trials("search", [trial, build.planned(build.spec(), lr=-6.0)])
        store.trial_started(trial.key, attempt=1)
        if number == 0:
            store.record_failure(
                trial.key, attempt=1, traceback="Traceback\n  line\nValueError: no such head", final=False
            )
            store.record_failure(trial.key, attempt=2, traceback="Traceback\nCUDA out of memory", final=True)
        else:
            store.record_failure(trial.key, attempt=1, traceback="Traceback\nKeyError: 'w'", final=False)
            store.record_result(trial.key, build.result(2.25))
    return trial.key


def test_a_log_tells_what_happened_in_every_study(api: Api, failed: str) -> None:
    whole = TrialLogRead.model_validate(api.get(LOG.format(key=failed)).json())
    assert TrialLogRead.model_validate(api.get(LOG.format(key=failed[:8])).json()) == whole
    assert [(event.kind, event.attempt, event.final, event.text) for event in whole.events] == [
        ("trial_started", 1, False, ""),
        ("trial_failed", 1, False, "ValueError: no such head"),
        ("trial_failed", 2, True, "CUDA out of memory"),
        ("trial_started", 1, False, ""),
        ("trial_failed", 1, False, "KeyError: 'w'"),
        ("trial_result", None, False, "loss 2.2500 nats"),
    ]
    assert (whole.status, whole.attempts, whole.traceback) == ("finished", 1, "Traceback\nKeyError: 'w'")
    assert len(whole.study_ids) == 2


def test_a_log_that_is_not_there_or_not_clear(api: Api, failed: str) -> None:
    assert api.get(LOG.format(key="0" * 32)).status_code == 404
    assert api.get(LOG.format(key="0" * 7)).status_code == 422
    assert api.get(LOG.format(key="xyz" * 8)).status_code == 422


def test_a_project_sees_its_own_part_of_a_shared_trial(api: Api, failed: str) -> None:
    with acting(Actor(id="someone", project="second")), reading(api.sessions) as session:
        seen = find(session, failed)
    assert [event.payload.get("reason") for _, event in seen.events] == [None, "KeyError: 'w'", None]
    with (
        acting(Actor(id="someone", project="third")),
        reading(api.sessions) as session,
        pytest.raises(NotFoundError),
    ):
        find(session, failed)


@pytest.fixture
def url(api: Api) -> Iterator[str]:
    with served(api.app) as address:  # type: ignore[arg-type]
        yield address


def test_the_command_line_prints_it(api: Api, failed: str, url: str) -> None:
    done = CliRunner().invoke(app, ["logs", failed[:10], "--url", url])
    assert done.exit_code == 0, done.stderr
    assert f"trial {failed}: finished, 1 failed attempts" in done.stdout
    assert "trial_failed attempt 2, given up CUDA out of memory" in done.stdout
    assert done.stdout.endswith("KeyError: 'w'\n")
    as_json = CliRunner().invoke(app, ["logs", failed, "--json", "--url", url])
    assert TrialLogRead.model_validate_json(as_json.stdout[as_json.stdout.index("{\n") :]).key == failed
    assert CliRunner().invoke(app, ["logs", "0" * 32, "--url", url]).exit_code == 2
