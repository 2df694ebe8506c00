from collections.abc import Iterator
from contextlib import ExitStack
import threading

import httpx
import pytest

from mutransfer.errors import AccessError, ConflictError, NotFoundError, SpecError, TransientError
from service import client as client_module
from service.app import create_app
from service.client import Client
from service.client_events import parse_events
from service.db.driver_store import DriverStore
from service.db.leases import Leases
from service.db.session import Sessions, make_engine, session_factory
from service.settings import Settings
from tests import study_builders as build
from tests.integration.api_fixtures import fail_study, finish_study, served


@pytest.fixture
def sessions(api_settings: Settings) -> Iterator[Sessions]:
    engine = make_engine(api_settings.database_url)
    yield session_factory(engine)
    engine.dispose()


@pytest.fixture
def client(api_settings: Settings) -> Iterator[Client]:
    with served(create_app(api_settings)) as url, Client(url) as made:
        yield made


def _drive(sessions: Sessions) -> DriverStore:
    claim = Leases(sessions).claim_next("test", 30.0)
    assert claim is not None
    return DriverStore(sessions, claim.study_id, claim.epoch, ttl_seconds=30.0)


def test_a_study_from_submission_to_recipe(client: Client, sessions: Sessions) -> None:
    assert client.health().status == "ok"
    assert client.plan(build.document()).trials_expected > 0
    study = client.submit(build.document(), idempotency_key="k")
    assert client.submit(build.document(), idempotency_key="k").id == study.id
    assert [item.id for item in client.list(project="tests").items] == [study.id]
    driver = threading.Thread(target=finish_study, args=(_drive(sessions),), daemon=True)
    driver.start()
    kinds = [event.kind for event in client.watch(study.id)]
    driver.join()
    assert kinds[-1] == "finished"
    assert kinds.count("trial_result") == 44
    assert client.wait(study.id).state == "completed"
    result = client.result(study.id)
    assert [arm.name for arm in result.arms] == ["adamw-sp", "adamw-mup"]
    assert client.verdict(study.id).arms[0].verdict.recorded_lr_octaves == -5.5
    assert len(client.curves(study.id).arms[0].curves) == 2
    trials = list(client.trials(study.id))
    assert len(trials) == 44
    assert client.trial(study.id, trials[0].key).result is not None
    assert client.recipe(study.id, width=256).arm == "adamw-mup"
    assert "def build_optimizer" in client.recipe_text(study.id, width=256, form="python")


def test_problems_become_the_kernels_errors(client: Client) -> None:
    with pytest.raises(SpecError) as refused:
        client.submit(build.document(arms__0__optimizer="adam", train__batch=0))
    assert {problem.field for problem in refused.value.problems} == {"arms.0.optimizer", "train.batch"}
    with pytest.raises(SpecError, match="malformed"):
        client.plan("name: [")
    with pytest.raises(NotFoundError, match="no study"):
        client.get("st_none")
    with pytest.raises(NotFoundError, match="no study"):
        next(client.watch("st_none"))
    client.submit(build.document(), idempotency_key="k")
    with pytest.raises(ConflictError, match="used for another request"):
        client.submit(build.document(name="other"), idempotency_key="k")
    refused_host = pytest.raises(AccessError, match="MUTRANSFER_ALLOWED_HOSTS")
    with Client(client.url, transport=_Renamed()) as renamed, refused_host:
        renamed.get("st_none")


class _Renamed(httpx.HTTPTransport):
    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.headers["Host"] = "evil.example"
        return super().handle_request(request)


def test_a_cancelled_study_ends_the_watch(client: Client) -> None:
    study = client.submit(build.document())
    seen = []
    for event in client.watch(study.id):
        seen.append(event.kind)
        if event.kind == "submitted":
            assert client.cancel(study.id).state == "cancelled"
    assert seen[-1] == "finished"
    assert [event.kind for event in client.watch(study.id, after=10**9)] == []


class _Flaky(httpx.BaseTransport):
    """Loses the answers of the first `failures` requests: the service has acted, the client cannot know."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.inner = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self.inner.handle_request(request)
        if self.failures:
            self.failures -= 1
            response.close()
            raise httpx.ReadError("the connection broke")
        return response

    def close(self) -> None:
        self.inner.close()


def test_a_submission_whose_answer_is_lost_makes_one_study(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "RETRY_DELAYS_SECONDS", (0.01, 0.01, 0.01))
    with Client(client.url, transport=_Flaky(3)) as flaky:
        study = flaky.submit(build.document())
    assert [item.id for item in client.list().items] == [study.id]


def test_actions_whose_answers_are_lost_are_done_once(
    client: Client, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "RETRY_DELAYS_SECONDS", (0.01, 0.01, 0.01))
    study_id = client.submit(build.document()).id
    with Client(client.url, transport=_Flaky(3)) as flaky:
        key = fail_study(_drive(sessions))
        assert flaky.retry(study_id).revision == 2
    with Client(client.url, transport=_Flaky(3)) as flaky:
        assert key == fail_study(_drive(sessions))
        assert flaky.retry_trial(study_id, key).revision == 3
    with Client(client.url, transport=_Flaky(3)) as flaky:
        client.cancel(study_id)
        extended = flaky.extend(study_id, {"widths": {"targets": [64, 128]}})
    assert (extended.revision, extended.spec.widths.targets) == (4, (64, 128))
    actions = [entry.action for entry in client.audit_log({"target": study_id}, limit=10)]
    assert sorted(actions) == ["study.cancel", "study.extend", "study.retry", "study.submit", "trial.retry"]


def test_a_key_is_for_one_action_on_one_study(client: Client) -> None:
    first, second = (client.submit(build.document(name=name)).id for name in ("first", "second"))
    for study_id in (first, second):
        client.cancel(study_id)
    key = {"Idempotency-Key": "one"}

    def post(path: str, body: dict[str, object]) -> httpx.Response:
        return httpx.post(f"{client.url}/api/v1/studies/{path}", json=body, headers=key, trust_env=False)

    wider = {"widths": {"targets": [64, 128]}}
    assert [post(f"{first}/extend", wider).status_code for _ in range(2)] == [200, 200]
    refused = [post(f"{first}/retry", {}), post(f"{second}/extend", wider), post(f"{first}/extend", {})]
    assert [answer.status_code for answer in refused] == [409, 409, 409]
    assert all(first in answer.json()["detail"] for answer in refused)
    assert client.get(second).revision == 1


def test_a_service_that_stays_away_is_a_transient_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "RETRY_DELAYS_SECONDS", (0.01,))
    with Client("http://127.0.0.1:9") as nobody:
        for ask in (nobody.health, lambda: list(nobody.watch("st_x")), lambda: nobody.submit(build.document())):
            with pytest.raises(TransientError, match="does not answer"):
                ask()


def test_a_watch_survives_a_restart_of_the_service(api_settings: Settings, sessions: Sessions) -> None:
    with ExitStack() as stack:
        with served(create_app(api_settings)) as url:
            client = stack.enter_context(Client(url))
            study = client.submit(build.document())
            events = client.watch(study.id)
            seen = [next(events) for _ in range(2)]
        finish_study(_drive(sessions))
        with served(create_app(api_settings), port=int(url.rpartition(":")[2])):
            seen += list(events)
    assert seen[-1].kind == "finished"
    ids = [event.id for event in seen if event.id is not None]
    assert ids == sorted(set(ids))


def test_events_are_parsed_from_lines() -> None:
    lines = [": ping", "", "event: a", 'data: {"at": 0,', 'data: "x": 1}', "id: 7", "", "data: {}", "", "event: cut"]
    first, second = parse_events(iter(lines))
    assert (first.id, first.kind, first.payload) == (7, "a", {"x": 1})
    assert first.at is not None
    assert first.at.year == 1970
    assert (second.id, second.kind, second.payload) == (None, "message", {})
