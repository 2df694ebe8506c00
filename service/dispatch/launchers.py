"""Where drivers run. A launcher starts one driver for one claim; `local` makes it a subprocess of the dispatcher."""

from collections.abc import Mapping, Sequence
from pathlib import Path
import sys
from typing import Protocol

from service.db.leases import Claim
from service.processes import Child, end_all

DRIVER_COMMAND = (sys.executable, "-m", "workers.driver")
#: Settings of the service that no driver needs: code of a study's own model runs beside it.
SECRETS = ("MUTRANSFER_TOKEN", "MUTRANSFER_SMTP_URL")


class DriverHandle(Protocol):
    """One driver that was started."""

    def poll(self) -> int | None:
        """The exit status, or None while it runs; negative when a signal ended it."""

    def end(self, *, grace_seconds: float) -> None:
        """Stop it: politely at first, by force after `grace_seconds`. Afterwards nothing of it runs."""

    def log_tail(self, lines: int) -> str:
        """The last lines that it wrote."""


class Launcher(Protocol):
    """Starts drivers."""

    def launch(self, claim: Claim) -> DriverHandle:
        """Start the driver of a claimed study.

        Raises OSError when it cannot be started, TransientError when the machine to start it on is away.
        """


class LocalDriver:
    """A driver that is a subprocess here."""

    def __init__(self, child: Child, log: Path) -> None:
        self._child = child
        self._log = log

    @property
    def pid(self) -> int:
        """Process id of the driver, also the id of the session that its Ray processes belong to."""
        return self._child.pid

    def poll(self) -> int | None:
        """See DriverHandle. A driver that ended takes along what it left behind (Ray's processes)."""
        status = self._child.poll()
        if status is not None:
            self._child.sweep()
        return status

    def end(self, *, grace_seconds: float) -> None:
        """See DriverHandle."""
        end_all([self._child], grace_seconds=grace_seconds)

    def log_tail(self, lines: int) -> str:
        """See DriverHandle."""
        return tail(self._log, lines)


class LocalLauncher:
    """Runs `command --study ID --epoch N` beside the dispatcher; its output is appended to `logs`/STUDY.log.

    Drivers get `env`, the dispatcher's own, but SECRETS.
    """

    def __init__(self, *, logs: Path, env: Mapping[str, str], command: Sequence[str] = DRIVER_COMMAND) -> None:
        self._logs = logs
        self._env = {name: value for name, value in env.items() if name not in SECRETS}
        self._command = tuple(command)

    def launch(self, claim: Claim) -> LocalDriver:
        """See Launcher."""
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f"{claim.study_id}.log"
        arguments = ("--study", claim.study_id, "--epoch", str(claim.epoch))
        with log.open("ab") as stream:
            return LocalDriver(Child((*self._command, *arguments), env=self._env, log=stream), log)


def tail(path: Path, lines: int) -> str:
    """The last `lines` lines of a log, empty when there is none. Reads 64 KiB at most."""
    if not path.exists():
        return ""
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - 65_536))
        text = stream.read().decode(errors="replace")
    return "\n".join(text.splitlines()[-lines:])
