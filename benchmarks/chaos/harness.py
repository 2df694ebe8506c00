"""What rows share: databases, sites with real processes on them, ways to kill, and the looks into what is left."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
import os
from pathlib import Path
from random import Random
import signal
import sys
import time
from typing import Any

from sqlalchemy.exc import OperationalError

from mutransfer.spec import StudySpec
from service.processes import Child, descendants, send
from tests.driver_support import Bench
from tests.postgres_server import PostgresServer, database_factory

TTL_SECONDS = 10.0
WAIT_SECONDS = 600.0
CLI = (sys.executable, "-m", "service.cli")
ENDED = "SELECT count(*) FROM studies WHERE state IN ('completed', 'failed', 'cancelled')"

#: Ray's two agents look for their cluster for a while after it was killed; a dispatcher ends them at once.
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")


def wait_until(
    condition: Callable[[], object], *, seconds: float = WAIT_SECONDS, what: str, every: float = 0.05
) -> None:
    """Poll until `condition` holds. Raises TimeoutError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come within {seconds:g} s")
        time.sleep(every)


class Site(Bench):
    """One home with its database, and the service's processes on it."""

    def __init__(self, home: Path, *, url: str, **environment: str) -> None:
        ours = {
            "MUTRANSFER_LEASE_TTL_SECONDS": f"{TTL_SECONDS:g}",
            "MUTRANSFER_LOG_FORMAT": "console",
            "MUTRANSFER_MODEL_PACKAGES": "benchmarks",
        }
        super().__init__(home, url=url, **{**ours, **environment})
        self.steps = home / "steps.log"
        self.children: list[Child] = []
        self.log_of: dict[int, Path] = {}

    def spawn(self, *arguments: str, name: str = "") -> Child:
        """A `mutransfer` command as a real process; its output goes to HOME/logs."""
        return self.python("-m", "service.cli", *arguments, name=name or arguments[0])

    def python(self, *arguments: str, name: str, **environment: str) -> Child:
        """Any Python process on this site."""
        logs = self.home / "logs"
        logs.mkdir(exist_ok=True)
        log = logs / f"{name}-{len(self.children)}.log"
        with log.open("ab") as stream:
            child = Child((sys.executable, *arguments), env={**self.environment, **environment}, log=stream)
        self.children.append(child)
        self.log_of[child.pid] = log
        return child

    def wait_said(self, child: Child, words: str) -> None:
        """Wait until a process has logged `words`."""
        log = self.log_of[child.pid]
        wait_until(lambda: words in log.read_text(errors="replace"), what=f"{words!r} of {log.name}")

    def processes(self) -> list[int]:
        """Everything that lives on this site, however it came there: whoever has its home in the environment."""
        mark = f"MUTRANSFER_HOME={self.home}\0".encode()
        return [pid for pid in _pids() if pid != os.getpid() and mark in _environ(pid) and is_running(pid)]

    def patient_query(self, statement: str) -> list[tuple[Any, ...]]:
        """As `query`, again while the database is away."""
        while True:
            try:
                return self.query(statement)
            except OperationalError:
                time.sleep(0.05)

    def count(self, statement: str) -> int:
        """The one number that a query returns, however often the database goes away meanwhile."""
        number: int = self.patient_query(statement)[0][0]
        return number

    def wait_ended(self, studies: int, *, seconds: float = WAIT_SECONDS) -> None:
        """Wait until so many studies have ended."""
        try:
            wait_until(lambda: self.count(ENDED) >= studies, seconds=seconds, what=f"the end of {studies} studies")
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.logs()}") from error

    def logs(self) -> str:
        """The end of everything that was logged."""
        return "\n".join(f"== {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in self._log_paths())

    def _log_paths(self) -> list[Path]:
        return sorted([*self.home.glob("driver-*.log"), *self.home.glob("logs/*.log")])

    def said(self, words: str) -> int:
        """How often any process has logged `words`."""
        return sum(path.read_text(errors="replace").count(words) for path in self._log_paths())

    def driver_pids(self) -> list[int]:
        """Drivers that live."""
        return [pid for pid in self.processes() if b"\0workers.driver\0" in _cmdline(pid)]

    def close(self) -> None:
        """Leave no process behind."""
        for child in self.children:
            child.sweep()
        deadline = time.monotonic() + 10.0
        while (left := self.processes()) and time.monotonic() < deadline:
            send(left, signal.SIGKILL)
            time.sleep(0.1)
        self.sessions.kw["bind"].dispose()


@dataclass
class Lab:
    """Where one row works: a folder, a kind of database, and a source of chance that a seed repeats."""

    folder: Path
    database: str
    server: PostgresServer | None = None
    rng: Random = field(default_factory=lambda: Random(0))
    say: Callable[[str], None] = lambda _line: None

    @contextmanager
    def site(self, name: str = "site", **environment: str) -> Iterator[Site]:
        """A fresh home and database; nothing of it runs afterwards."""
        home = self.folder / name
        if self.server is not None:
            url = database_factory(self.server, [])()
        else:
            home.mkdir(parents=True)
            url = f"sqlite:///{home / 'mutransfer.db'}"
        site = Site(home, url=url, **environment)
        try:
            yield site
        finally:
            site.close()


def kill(pids: Sequence[int]) -> None:
    """kill -9."""
    send(pids, signal.SIGKILL)


def family(child: Child) -> list[int]:
    """A child and all its descendants, youngest last."""
    return [child.pid, *descendants(child.pid)]


def stub_study(
    site: Site, *, rates: int, widths: Sequence[int] = (8, 16, 24, 32), seconds: float = 0.5, steps: int = 10,
    name: str = "chaos", **options: Any,
) -> StudySpec:  # fmt: skip
    """A study of exactly `rates` × `widths` trials of about `seconds` each, told step by step to `site.steps`."""
    from mutransfer.spec import parse_study

    low = -10.0
    optimizer = {"log": str(site.steps), "seconds": seconds / steps, **options}
    return parse_study(
        {
            "name": name,
            "model": {"family": "mlp", "depth": 1, "context": 8},
            "data": {"source": f"text:{_text(site)}"},
            "train": {"batch": 2, "steps": steps, "schedule": "constant", "warmup": 0.0},
            "eval": {"tokens": 64},
            "widths": {"base": min(widths), "proxy": list(widths), "targets": []},
            "arms": [
                {
                    "name": "stub", "optimizer": "benchmarks.chaos.stub_optimizer:Witnessed", "parametrization": "sp",
                    "options": optimizer,
                }
            ],
            "search": {
                "algorithm": "grid",
                "lr_octaves": {"low": low, "high": low + 0.5 * (rates - 1), "step": 0.5, "limit": [-12, 6]},
                "seeds": {"min": 1, "max": 1},
            },
        }
    )  # fmt: skip


def _text(site: Site) -> Path:
    path = site.home / "text.txt"
    if not path.exists():
        rng = Random(0)
        path.write_text("".join(rng.choice(["the ", "cat ", "sat ", "on ", "a ", "mat.\n"]) for _ in range(4000)))
    return path


def outcome(site: Site) -> Mapping[str, int]:
    """What became of the trials: planned, with a result, told to the outside, told twice, given up."""
    query = site.count
    return {
        "planned": query("SELECT count(*) FROM trials"),
        "results": query("SELECT count(*) FROM trials WHERE result IS NOT NULL"),
        "told": query("SELECT count(*) FROM outbox WHERE kind = 'trial_result'"),
        "events": query("SELECT count(*) FROM events WHERE kind = 'trial_result'"),
        "given up": query("SELECT count(*) FROM study_trials WHERE unavailable"),
        "failed attempts": query("SELECT coalesce(sum(attempts), 0) FROM trials"),
        "completed": query("SELECT count(*) FROM studies WHERE state = 'completed'"),
    }


def results(site: Site) -> dict[str, str]:
    """Every stored result, as text: a finished one must never change."""
    return {
        key: str(result)
        for key, result in site.patient_query("SELECT key, result FROM trials WHERE result IS NOT NULL")
    }


def is_running(pid: int) -> bool:
    """Whether a process lives (a zombie does not)."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def _environ(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/environ").read_bytes() + b"\0"
    return b""


def _cmdline(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""
