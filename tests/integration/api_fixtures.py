"""The real application over SQLite: in process for most tests, behind a real server where the socket matters."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
import shutil
import threading
import time

from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import func, select
import uvicorn

from mutransfer.judge import CurveData, judge_study
from mutransfer.result import StudyRef
from service.app import create_app
from service.db.driver_store import DriverStore
from service.db.leases import Leases
from service.db.session import Sessions, reading
from service.db.tables import EventRow, IdempotencyRow, LeaseRow, OutboxRow, StudyRow
from service.settings import Settings
from tests import study_builders as build

ADDRESS = "http://127.0.0.1:8400"
STUDIES = "/api/v1/studies"


def settings_in(folder: Path, migrated: Path, **changes: object) -> Settings:
    """Settings of a service whose home is `folder`, on a copy of the migrated database."""
    settings = Settings(home=folder / "home", working_dir=folder / "work", **changes).prepare_home()  # type: ignore[arg-type]
    settings.working_dir.mkdir(exist_ok=True)
    shutil.copy(migrated, settings.home / "mutransfer.db")
    return settings


class Api(TestClient):
    """The application in process; `sessions` look at its database."""

    def __init__(self, settings: Settings, *, raise_bugs: bool = True) -> None:
        self.settings = settings
        application = create_app(settings)
        self.sessions: Sessions = application.state.context.sessions
        super().__init__(application, base_url=ADDRESS, raise_server_exceptions=raise_bugs)

    def submit(self, **changes: object) -> str:
        """Submit the small study; returns its id."""
        response = self.post(STUDIES, json=build.document(**changes))
        assert response.status_code == 201, response.text
        study_id: str = response.json()["id"]
        return study_id

    def drive(self) -> DriverStore:
        """Claim the oldest free study."""
        claim = Leases(self.sessions).claim_next("test", 30.0)
        assert claim is not None
        return DriverStore(self.sessions, claim.study_id, claim.epoch, ttl_seconds=30.0)

    def rows(self) -> int:
        """How many rows a submission could have written."""
        tables = (StudyRow, LeaseRow, EventRow, OutboxRow, IdempotencyRow)
        with reading(self.sessions) as session:
            return sum(session.scalar(select(func.count()).select_from(table)) or 0 for table in tables)


def places(api: Api) -> dict[str, str]:
    """What stands for each parameter of a path in a service that has a study and the schedule `nightly`."""
    study = api.get(f"{STUDIES}?sort=created").json()["items"][0]["id"]
    trial = api.get(f"{STUDIES}/{study}/trials").json()["items"][0]["key"]
    return {"study_id": study, "key": trial, "trial": trial, "schedule": "nightly", "night": "1", "kind": "md"}


@contextmanager
def served(application: FastAPI, *, port: int = 0) -> Iterator[str]:
    """The application behind a real server on a free port; yields its address."""
    config = uvicorn.Config(application, port=port, log_config=None, access_log=False, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        bound = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{bound}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        assert not thread.is_alive()


def fail_study(store: DriverStore) -> str:
    """Drive the small study into the failure of its one trial; returns the trial's key."""
    trial = build.planned(store.study().spec)
    store.mark_running()
    store.begin_phase("search")
    store.plan_trials("search", [trial])
    store.record_failure(trial.key, attempt=3, traceback="ValueError: bad", final=True)
    store.finish("failed", result=None, error="broken")
    return trial.key


def finish_study(store: DriverStore) -> None:
    """Drive the small study to its end: parabolas with their minimum at -5.5, but at -7 for SP at the target."""
    spec = store.study().spec
    store.mark_running()
    store.record_facts(build.FACTS)
    for phase, width in (("search", 16), ("transfer", 64)):
        best = {"adamw-mup": -5.5, "adamw-sp": -5.5 if width == 16 else -7.0}
        points = [(arm.name, -8.0 + half / 2) for arm in spec.arms for half in range(11)]
        trials = [
            (build.planned(spec, arm, width=width, lr=lr), build.result(2.0 + (lr - best[arm]) ** 2 / 50))
            for arm, lr in points
        ]
        build.run_phase(store, phase, trials)
        store.finish_phase(phase, {"recorded": {arm.name: -5.5 for arm in spec.arms}})
    curves = [CurveData(arm=arm, axis_value=width, observations=o) for (arm, width), o in store.observations().items()]
    study = store.study()
    ref = StudyRef(id=study.id, name=study.name, state="completed")
    store.finish("completed", result=judge_study(spec, curves, recorded=store.recorded(), study=ref, cost=store.cost()))
