"""Fixtures of the operations' tests: a home with a database, a dispatcher on the stub driver, a real MLflow server."""

from collections.abc import Callable, Iterator
import contextlib
from dataclasses import dataclass, field
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import httpx
import pytest
from sqlalchemy.orm import undefer

from mutransfer.spec import StudySpec, parse_study
from service.db.driver_store import DriverStore
from service.db.leases import Claim, Leases
from service.db.migrate import upgrade
from service.db.session import Sessions, make_engine, reading, session_factory
from service.db.states import StudyState
from service.db.studies import Submission, cancel, submit
from service.db.tables import StudyRow
from service.dispatch.dispatcher import Dispatcher
from service.dispatch.launchers import LocalLauncher
from service.dispatch.ledger import Ledger
from service.export.server import mlflow_command, mlflow_environment
from service.ports import free_port
from service.processes import Child, end_all

REPOSITORY = Path(__file__).resolve().parents[3]
STUB = (sys.executable, "-m", "tests.integration.ops.stub_driver")
TTL_SECONDS = 15.0


def stub_study(name: str, **changes: object) -> StudySpec:
    """A small study whose name tells the stub driver what to do."""
    document: dict[str, object] = {
        "name": name,
        "model": {"family": "mlp", "depth": 2, "context": 8},
        "train": {"batch": 32, "steps": 300},
        "widths": {"base": 16, "proxy": [16], "targets": [64]},
        "arms": [{"optimizer": "adamw", "parametrization": "mup"}, {"optimizer": "adamw", "parametrization": "sp"}],
        "search": {"lr_octaves": {"low": -8, "high": -3}, "seeds": {"min": 1, "max": 1}},
    }
    return parse_study(document | changes)


def wait_until(condition: Callable[[], object], *, seconds: float = 90.0, what: str = "the condition") -> None:
    """Poll until `condition` holds; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come within {seconds:g} s")
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    """Whether a process lives (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@dataclass(kw_only=True)
class Home:
    """A home folder with its migrated database."""

    path: Path
    url: str
    sessions: Sessions
    ttl_seconds: float = TTL_SECONDS
    dispatchers: list[Dispatcher] = field(default_factory=list)

    def submit(self, name: str, **changes: object) -> str:
        """Accept a study for the stub driver; returns its id."""
        nonce = str(changes.pop("nonce", ""))
        spec = stub_study(name, **changes)
        return submit(self.sessions, Submission(spec=spec, trials_expected=None, nonce=nonce))[0]

    def row(self, study_id: str) -> StudyRow:
        """The study as stored, its result included."""
        with reading(self.sessions) as session:
            row = session.get(StudyRow, study_id, options=[undefer(StudyRow.result)])
            assert row is not None
            return row

    def cancel(self, study_id: str) -> None:
        """Ask a study to stop, as a person does."""
        with self.sessions.begin() as session:
            cancel(session, study_id)

    def environment(self, **extra: str) -> dict[str, str]:
        """For processes that work on this home."""
        ours = {
            "MUTRANSFER_HOME": str(self.path), "MUTRANSFER_DATABASE_URL": self.url,
            "MUTRANSFER_LEASE_TTL_SECONDS": str(self.ttl_seconds), "PYTHONPATH": str(REPOSITORY),
        }  # fmt: skip
        return {**os.environ, **ours, **extra}

    def finish(self, claim: Claim, state: StudyState, error: str) -> None:
        """Ends a study for a dispatcher."""
        store = DriverStore(self.sessions, claim.study_id, claim.epoch, ttl_seconds=self.ttl_seconds)
        if state is StudyState.PAUSED:
            store.leave()
        else:
            store.finish(state, result=None, error=error)

    def dispatcher(self, *, limit: int = 1, **environment: str) -> Dispatcher:
        """A dispatcher in this process, on the stub driver."""
        launcher = LocalLauncher(logs=self.path / "logs", env=self.environment(**environment), command=STUB)
        made = Dispatcher(
            leases=Leases(self.sessions), ledger=Ledger(self.sessions), launcher=launcher, finish=self.finish,
            ttl_seconds=self.ttl_seconds, limit=limit,
        )  # fmt: skip
        self.dispatchers.append(made)
        return made

    def close(self) -> None:
        """End what still runs."""
        for dispatcher in self.dispatchers:
            dispatcher.shutdown()
        self.sessions.kw["bind"].dispose()


def _home(path: Path, url: str) -> Home:
    upgrade(url)
    return Home(path=path, url=url, sessions=session_factory(make_engine(url)))


@pytest.fixture
def home(tmp_path: Path, database_url: str) -> Iterator[Home]:
    """A home on SQLite, then on PostgreSQL."""
    made = _home(tmp_path, database_url)
    yield made
    made.close()


@pytest.fixture
def sqlite_home(tmp_path: Path) -> Iterator[Home]:
    """A home on SQLite."""
    made = _home(tmp_path, f"sqlite:///{tmp_path / 'mutransfer.db'}")
    yield made
    made.close()


@contextlib.contextmanager
def spawned(
    *arguments: str, env: dict[str, str], cwd: Path = REPOSITORY, stdout: int = subprocess.DEVNULL
) -> Iterator["subprocess.Popen[str]"]:
    """A `mutransfer` command as a real process, killed at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "service.cli", *arguments], env=env, cwd=cwd, text=True, stdout=stdout,
        stderr=subprocess.PIPE if stdout == subprocess.PIPE else subprocess.DEVNULL,
        # A suite that runs in the background hands down an ignored SIGINT, and Ctrl-C would do nothing.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@contextlib.contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[str]:
    """A real tracking server over `folder`, ended with all its processes."""
    (folder / "artifacts").mkdir(parents=True, exist_ok=True)
    with (folder / "mlflow.log").open("ab") as log:
        server = Child(mlflow_command(folder, host="127.0.0.1", port=port), env=mlflow_environment(), log=log)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: _answers(url), seconds=120, what="MLflow")
        yield url
    finally:
        end_all([server], grace_seconds=5)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="session")
def mlflow_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One MLflow server for the session."""
    with mlflow_server(tmp_path_factory.mktemp("mlflow"), free_port()) as url:
        yield url
