"""A study in a database of its own and real driver processes on it, for tests of workers and of whole services."""

from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
import os
from pathlib import Path
import secrets
import subprocess
import sys
import time
from typing import Any

from sqlalchemy import text

from mutransfer.spec import StudySpec
from service.db.leases import Claim, Leases
from service.db.migrate import upgrade
from service.db.session import Sessions, make_engine, session_factory
from service.db.studies import Submission, cancel, submit
from service.processes import session_members
from service.settings import Settings

REPOSITORY = Path(__file__).resolve().parent.parent


class Bench:
    """One home folder with a migrated database, and drivers started on it by hand."""

    def __init__(self, home: Path, *, url: str = "", **environment: str) -> None:
        self.home = home
        self.settings = Settings(home=home, database_url=url).prepare_home()
        upgrade(self.settings.database_url)
        self.sessions: Sessions = session_factory(make_engine(self.settings.database_url))
        self.environment = {
            **os.environ,
            "MUTRANSFER_HOME": str(home),
            "MUTRANSFER_DATABASE_URL": self.settings.database_url,
            "MUTRANSFER_RAY_CPUS": "2",
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), environment.pop("PYTHONPATH", "")]).rstrip(os.pathsep),
            **environment,
        }

    def submit(self, spec: StudySpec) -> str:
        """Accept a study; returns its id."""
        return submit(self.sessions, Submission(spec=spec, trials_expected=None))[0]

    def claim(self, ttl_seconds: float = 60.0) -> Claim:
        """Claim the one study; the claim before is taken as expired."""
        with self.sessions.begin() as session:
            session.execute(text("UPDATE leases SET expires_at = 0"))
        claim = Leases(self.sessions).claim_next("test", ttl_seconds)
        assert claim is not None
        return claim

    @contextmanager
    def driver(self, claim: Claim) -> Iterator["DriverProcess"]:
        """A driver process in a session of its own; it and its Ray are gone afterwards."""
        process = DriverProcess(claim, self.environment, self.home / f"driver-{claim.epoch}.log")
        try:
            yield process
        finally:
            process.end()

    def run(self, claim: Claim, *, timeout: float = 900.0) -> int:
        """Run a driver to its end; returns the exit status."""
        with self.driver(claim) as process:
            return process.wait(timeout)

    def cancel(self, study_id: str) -> None:
        """Ask for the study's cancellation."""
        with self.sessions.begin() as session:
            cancel(session, study_id)

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Rows of an SQL query."""
        with self.sessions() as session:
            return [tuple(row) for row in session.execute(text(statement))]

    def wait_for(self, statement: str, at_least: int, *, seconds: float = 600.0) -> None:
        """Wait until a counting query reaches `at_least`."""
        deadline = time.monotonic() + seconds
        while (count := self.query(statement)[0][0]) < at_least:
            assert time.monotonic() < deadline, f"{statement}: {count} after {seconds} s\n{self.logs()}"
            time.sleep(0.1)

    def logs(self) -> str:
        """What all drivers wrote."""
        return "\n".join(path.read_text()[-4000:] for path in sorted(self.home.glob("driver-*.log")))

    def losses(self) -> Mapping[tuple[Any, ...], float | None]:
        """Loss of every trial with a result, by (arm, axis value, learning rate, seed)."""
        rows = self.query(
            "SELECT DISTINCT arm, axis_value, lr_octaves, study_trials.seed, loss_nats FROM study_trials "
            "JOIN trials ON trials.key = trial_key WHERE result IS NOT NULL"
        )
        return {row[:-1]: row[-1] for row in rows}


_CLUSTER = """
import sys
from workers.ray_session import ray_session
with ray_session(address="", cpus=2):
    import ray
    print("address", ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.read()
"""


@contextmanager
def ray_cluster() -> Iterator[Mapping[str, str]]:
    """A Ray that several drivers share, as an operator would run it; yields the environment that leads to it."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    environment = {**os.environ, **token, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(
        [sys.executable, "-c", _CLUSTER], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = next((line for line in process.stdout if line.startswith("address ")), "")
        assert line, "Ray did not start"
        yield {**token, "MUTRANSFER_RAY_ADDRESS": line.split()[1]}
    finally:
        process.stdin.close()
        process.wait(60)
        process.stdout.close()


def title(pid: int) -> str:
    """What a process calls itself; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0].decode()
    except OSError:
        return ""


class DriverProcess:
    """A running `python -m workers.driver`."""

    def __init__(self, claim: Claim, environment: Mapping[str, str], log: Path) -> None:
        with log.open("ab") as stream:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "workers.driver", "--study", claim.study_id, "--epoch", str(claim.epoch)],
                env=dict(environment), stdout=stream, stderr=subprocess.STDOUT, start_new_session=True, cwd=log.parent,
            )  # fmt: skip

    def wait(self, timeout: float) -> int:
        """The exit status."""
        return self.popen.wait(timeout)

    def members(self) -> list[int]:
        """Living processes of the driver's session: itself, Ray and the actors."""
        return session_members(self.popen.pid)

    def wait_gone(self, seconds: float, *, but: Container[str] = ()) -> float:
        """Wait until nothing of the session lives `but` processes of these titles; returns how long it took."""
        started = time.monotonic()
        while left := [pid for pid in self.members() if title(pid) not in but]:
            assert time.monotonic() - started < seconds, f"still alive after {seconds} s: {left}"
            self.popen.poll()
            time.sleep(0.05)
        return time.monotonic() - started

    def end(self) -> None:
        """Kill what is left."""
        for pid in self.members():
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                continue
        self.popen.wait()
