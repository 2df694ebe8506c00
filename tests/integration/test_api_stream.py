from collections.abc import Callable
import json
import threading
import time

import httpx
import pytest

from service.app import create_app
from service.db.session import make_engine, session_factory
from service.db.studies import cancel
from service.settings import Settings
from service.studies import stream
from tests import study_builders as build
from tests.integration.api_fixtures import STUDIES, Api, finish_study, served

Message = dict[str, str]


def parse(text: str) -> list[Message]:
    """The messages of an event stream, comments left out."""
    blocks = [block.splitlines() for block in text.split("\n\n") if block]
    return [dict(line.split(": ", 1) for line in lines) for lines in blocks if not lines[0].startswith(":")]


def test_a_finished_study_tells_everything_and_ends(api: Api) -> None:
    study_id = api.submit()
    finish_study(api.drive())
    response = api.get(f"{STUDIES}/{study_id}/events")
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-store"
    messages = parse(response.text)
    kinds = [message["event"] for message in messages]
    assert kinds[0] == "progress"
    assert kinds[1:3] == ["submitted", "running"]
    assert kinds.count("trial_result") == 44
    assert kinds[-1] == "finished"
    ids = [int(message["id"]) for message in messages if message["event"] != "progress"]
    assert ids == sorted(set(ids))
    assert json.loads(messages[-1]["data"])["state"] == "completed"
    assert json.loads(messages[0]["data"])["trials_done"] == 44


def test_a_stream_resumes_after_the_last_event_seen(api: Api) -> None:
    study_id = api.submit()
    finish_study(api.drive())
    here = f"{STUDIES}/{study_id}/events"
    ids = [int(m["id"]) for m in parse(api.get(here).text) if "id" in m]
    for resumed in (api.get(here, headers={"Last-Event-ID": str(ids[20])}), api.get(f"{here}?after={ids[20]}")):
        assert [int(m["id"]) for m in parse(resumed.text) if "id" in m] == ids[21:]
    nothing_left = api.get(here, headers={"Last-Event-ID": str(ids[-1])})
    assert (nothing_left.status_code, nothing_left.content) == (204, b"")


def test_more_events_than_one_page_arrive_in_order(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.db.events.PAGE", 7)
    monkeypatch.setattr(stream, "POLL_SECONDS", 0.01)
    study_id = api.submit()
    finish_study(api.drive())
    kinds = [message["event"] for message in parse(api.get(f"{STUDIES}/{study_id}/events").text)]
    assert kinds.count("trial_result") == 44
    assert kinds[-1] == "finished"


def test_watchers_are_told_as_it_happens(api_settings: Settings) -> None:
    sessions = session_factory(make_engine(api_settings.database_url))
    told: list[tuple[str, float]] = []
    with served(create_app(api_settings)) as url:
        study_id = httpx.post(f"{url}{STUDIES}", json=build.document()).json()["id"]
        watching = threading.Event()

        def watch() -> None:
            with httpx.stream("GET", f"{url}{STUDIES}/{study_id}/events", timeout=20) as response:
                for line in response.iter_lines():
                    if line.startswith("event: "):
                        told.append((line.removeprefix("event: "), time.monotonic()))
                        watching.set()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        assert watching.wait(10)
        asked = time.monotonic()
        with sessions.begin() as session:
            cancel(session, study_id)
        thread.join(timeout=10)
        assert not thread.is_alive()
    sessions.kw["bind"].dispose()
    assert [kind for kind, _ in told] == ["progress", "submitted", "progress", "finished"]
    assert told[-1][1] - asked < 5.0


def test_many_watchers_hold_no_connection_and_no_thread(
    api_settings: Settings, record_property: Callable[[str, object], None]
) -> None:
    """Streams wait without a session: far more of them than connections or threads, and the API still answers."""
    watchers = 100
    application = create_app(api_settings)
    pool = application.state.context.sessions.kw["bind"].pool
    connected = threading.Semaphore(0)
    stop = threading.Event()

    def watch(url: str) -> None:
        with httpx.stream("GET", url, timeout=60) as response:
            for _line in response.iter_lines():
                connected.release()
                if stop.is_set():
                    return

    with served(application) as url:
        study_id = httpx.post(f"{url}{STUDIES}", json=build.document()).json()["id"]
        address = f"{url}{STUDIES}/{study_id}/events"
        threads = [threading.Thread(target=watch, args=(address,), daemon=True) for _ in range(watchers)]
        for thread in threads:
            thread.start()
        for _ in range(watchers):
            assert connected.acquire(timeout=60)
        seconds, in_use = [], []
        for _ in range(20):
            started = time.monotonic()
            assert httpx.get(f"{url}{STUDIES}/{study_id}").status_code == 200
            seconds.append(time.monotonic() - started)
            in_use.append(pool.checkedout())
        stop.set()
        httpx.post(f"{url}{STUDIES}/{study_id}/cancel")
        for thread in threads:
            thread.join(timeout=60)
        assert not any(thread.is_alive() for thread in threads)
    record_property("median_answer_seconds", sorted(seconds)[10])
    record_property("connections_in_use", max(in_use))
    assert min(in_use) < 8
    assert sorted(seconds)[10] < 5.0
