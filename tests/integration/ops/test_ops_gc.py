"""`mutransfer gc` over a real home: what studies need stays, the rest goes, and a dry run touches nothing."""

from collections.abc import Callable, Iterator
import json
import os
from pathlib import Path
import time

import pytest
from typer.testing import CliRunner, Result

from service.cli import app
from service.db import studies
from service.db.driver_store import DriverStore
from service.db.leases import Leases
from service.db.migrate import upgrade
from service.db.session import Sessions, make_engine, session_factory
from service.db.studies import Submission
from service.settings import Settings
from tests import study_builders as build

DAYS = 86_400.0


class Home:
    """A home whose files are 30 days old unless said otherwise."""

    def __init__(self, settings: Settings, sessions: Sessions) -> None:
        self.settings, self.sessions = settings, sessions

    def file(self, path: str, *, days: float = 30.0, size: int = 1000) -> Path:
        made = self.settings.home / path
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_bytes(b"x" * size)
        then = time.time() - days * DAYS
        for touched in (made, made.parent):
            os.utime(touched, (then, then))
        return made

    def files(self) -> set[str]:
        found = (path for path in self.settings.home.rglob("*") if path.is_file())
        return {str(path.relative_to(self.settings.home)) for path in found if "mutransfer.db" not in path.name}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str) -> Iterator[Home]:
    monkeypatch.setenv("MUTRANSFER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MUTRANSFER_DATABASE_URL", database_url)
    upgrade(database_url)
    engine = make_engine(database_url)
    yield Home(Settings().prepare_home(), session_factory(engine))
    engine.dispose()


def submit(home: Home, name: str) -> tuple[str, DriverStore]:
    study_id = studies.submit(home.sessions, Submission(spec=build.spec(name=name), trials_expected=None))[0]
    claim = Leases(home.sessions).claim_next("test", 600.0)
    assert claim is not None
    assert claim.study_id == study_id
    store = DriverStore(home.sessions, study_id, claim.epoch, ttl_seconds=600.0)
    store.mark_running()
    store.record_facts(build.FACTS)
    return study_id, store


def gc(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["gc", *arguments])


@pytest.fixture
def filled(home: Home) -> Callable[[str], str]:
    """A home with a running study and one that failed; gives names to the files of both."""
    done, wanted, given_up = (build.planned(build.spec(), lr=lr).key for lr in (-5.0, -6.0, -7.0))
    running, store = submit(home, "running")
    store.begin_phase("search")
    store.plan_trials("search", [build.planned(build.spec(), lr=lr) for lr in (-5.0, -6.0)])
    store.record_result(done, build.result(2.0))
    failed, other = submit(home, "failed")
    other.begin_phase("search")
    other.plan_trials("search", [build.planned(build.spec(), lr=-7.0)])
    other.finish("failed", result=None, error="boom")
    with home.sessions.begin() as session:
        row = studies.get(session, failed)
        row.finished_at = time.time() - 20 * DAYS
        row.mlflow_url = "http://127.0.0.1:5000/#/experiments/3/runs/abc0"
    names = {
        "done": f"storage/{done}/1/step-9.pt", "wanted": f"storage/{wanted}/1/step-9.pt",
        "idle": f"storage/{given_up}/1/step-9.pt", "unknown": f"storage/{'f' * 32}/1/step-9.pt",
        "spooled": f"storage/spool/{running}/{wanted}.json", "stored": f"storage/spool/{running}/{done}.json",
        "strange": f"storage/spool/{running}/{'e' * 32}.json",
        "data": f"storage/data/{build.ENVIRONMENT.data_fingerprint}/train.bin", "stale": "storage/data/0123/train.bin",
        "log": f"logs/{running}.log", "old log": f"logs/{failed}.log", "service log": "logs/controller.log",
        "artifact": "mlflow/artifacts/3/abc0/artifacts/report.html",
    }  # fmt: skip
    for path in names.values():
        home.file(path)
    return names.__getitem__


def test_what_nothing_needs_goes_and_the_rest_stays(home: Home, filled: Callable[[str], str]) -> None:
    before = home.files()
    tried = gc("--dry-run", "--json")
    assert tried.exit_code == 0, tried.output
    assert home.files() == before
    done = gc("--json")
    gone = {filled(name) for name in ("done", "idle", "unknown", "stored", "stale", "old log")}
    assert before - home.files() == gone
    assert json.loads(done.stdout)["freed_bytes"] == json.loads(tried.stdout)["freed_bytes"] == 6000
    assert [Path(item["path"]).name for item in json.loads(done.stdout)["removed"] if item["kind"] == "spool"] == [
        Path(filled("stored")).name
    ]
    again = gc()
    assert "freed 0 B (0 removed)" in again.stdout


def test_the_young_stays_until_the_budget_asks(home: Home, filled: Callable[[str], str]) -> None:
    for name in ("idle", "unknown"):
        home.file(filled(name), days=2.0)
    gc()
    assert {filled("idle"), filled("unknown")} <= home.files()
    over = gc("--budget", "0.000001", "--artifacts")
    assert over.exit_code == 1
    assert "studies in progress need it" in over.stderr
    assert home.files() == {filled(name) for name in ("wanted", "spooled", "strange", "data", "log", "service log")}


def test_what_was_touched_within_the_hour_stays_whatever_the_budget(home: Home, filled: Callable[[str], str]) -> None:
    home.file(filled("unknown"), days=0.01)
    gc("--older-than", "0", "--budget", "0")
    assert filled("unknown") in home.files()


def test_a_database_that_is_not_ours_is_refused(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.file(f"storage/{'f' * 32}/1/step-9.pt")
    monkeypatch.setenv("MUTRANSFER_DATABASE_URL", f"sqlite:///{tmp_path / 'wrong.db'}")
    done = gc()
    assert done.exit_code == 2
    assert "db upgrade" in done.stderr
    assert home.files()
