"""`mutransfer up`: the whole service on one machine, in the foreground, everything it writes under one folder.

Controller, dispatcher, scheduler, exporter and an MLflow server, supervised; SIGTERM or Ctrl-C ends them all with
everything that they started.
"""

from collections.abc import Iterator, Sequence
import contextlib
from dataclasses import dataclass
import fcntl
import os
from pathlib import Path
import sys
import threading
import time

import httpx

from mutransfer.errors import ConflictError, MutransferError
from service.auth.doorkeeper import is_personal
from service.dispatch.launchers import tail
from service.export.server import mlflow_command, mlflow_environment
from service.loops import stop_on_signals
from service.ports import free_port, require_free
from service.processes import adopt_orphans
from service.runtime import ensure_token, forget_runtime, read_runtime, write_runtime
from service.settings import Settings
from service.supervisor import Kept, Program, Say, Supervisor

POLL_SECONDS = 0.1
READY_SECONDS = 180.0
EARLY_DEATHS = 3  # of the controller before it ever answered
MLFLOW_PORT_FILE = "port"


class StartupError(MutransferError):
    """The service could not be started; the message says why."""


@dataclass(frozen=True, kw_only=True)
class UpOptions:
    """What `mutransfer up` was asked. `token`: whether callers need one."""

    token: bool = False
    mlflow: bool = True
    max_studies: int = 1
    driver: str = ""  # a module to run in place of workers.driver


def up(settings: Settings, options: UpOptions, *, announce: Say, say: Say) -> None:
    """Serve until SIGTERM. `announce` gets the ready line, `say` everything else.

    Raises ConflictError when the port or the home is in use, StartupError when the controller does not come up.
    """
    stop = stop_on_signals()
    settings.prepare_home()
    with one_per_home(settings.home):
        settings = _with_port_and_token(settings, options)
        _migrate(settings)
        adopt_orphans()
        supervisor = Supervisor(logs=settings.home / "logs", say=say)
        try:
            _serve(supervisor, settings, options, stop=stop, announce=announce, say=say)
        finally:
            forget_runtime(settings.home)
            supervisor.end()


def _serve(
    supervisor: Supervisor, settings: Settings, options: UpOptions, *, stop: threading.Event, announce: Say, say: Say
) -> None:
    if options.mlflow and not settings.mlflow_url:
        settings = settings.model_copy(update={"mlflow_url": _start_mlflow(supervisor, settings)})
    env = child_environment(settings)
    controller = supervisor.start(_program("controller", env))
    driver = ("--driver", options.driver) if options.driver else ()
    supervisor.start(_program("dispatcher", env, "--max-studies", str(options.max_studies), *driver))
    supervisor.start(_program("scheduler", env))
    if settings.mlflow_url:
        supervisor.start(_program("exporter", env))
    if not _wait_until_ready(supervisor, controller, settings.url, stop):
        return
    write_runtime(settings.home, _runtime(settings))
    say(f"MLflow {settings.mlflow_url or 'is off'} · logs in {settings.home / 'logs'}")
    announce(f"ready {settings.url}")
    while not stop.wait(POLL_SECONDS):
        supervisor.tick()
    say("stopping")


def _program(name: str, env: dict[str, str], *arguments: str) -> Program:
    return Program(name=name, command=(sys.executable, "-m", "service.cli", name, *arguments), env=env)


def _wait_until_ready(supervisor: Supervisor, controller: Kept, url: str, stop: threading.Event) -> bool:
    """Whether the controller is ready; False when asked to stop meanwhile."""
    deadline = time.monotonic() + READY_SECONDS
    while not stop.wait(POLL_SECONDS):
        supervisor.tick()
        if controller.restart_at is None and _answers(url):
            return True
        if controller.deaths >= EARLY_DEATHS or time.monotonic() > deadline:
            raise StartupError(f"the controller does not answer at {url}. End of its log:\n{tail(controller.log, 20)}")
    return False


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5.0, trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _with_port_and_token(settings: Settings, options: UpOptions) -> Settings:
    """The home has a token always, so that its owner's command line goes on working once tokens are demanded."""
    ensure_token(settings.home)
    update: dict[str, object] = {"port": require_free(settings.host, settings.port)}
    if options.token or not is_personal(settings):
        update["auth"] = "required"
    return settings.model_copy(update=update)


def _runtime(settings: Settings) -> dict[str, object]:
    return {
        "url": settings.url, "mlflow_url": settings.mlflow_url, "pid": os.getpid(), "token": True,
        "started_at": time.time(),
    }  # fmt: skip


def _migrate(settings: Settings) -> None:
    from service.db.migrate import upgrade

    upgrade(settings.database_url)


def _start_mlflow(supervisor: Supervisor, settings: Settings) -> str:
    home = settings.home / "mlflow"
    (home / "artifacts").mkdir(parents=True, exist_ok=True)
    port = _steady_port(home / MLFLOW_PORT_FILE)
    command = mlflow_command(home, host="127.0.0.1", port=port)
    supervisor.start(Program(name="mlflow", command=command, env=mlflow_environment()))
    return f"http://127.0.0.1:{port}"


def _steady_port(file: Path) -> int:
    """The port of last time while it is free, so that links to MLflow outlive a restart."""
    with contextlib.suppress(OSError, ValueError, ConflictError):
        return require_free("127.0.0.1", int(file.read_text()))
    port = free_port()
    file.write_text(str(port))
    return port


def child_environment(settings: Settings) -> dict[str, str]:
    """The environment of a process that shall read these very settings."""
    lists: dict[str, tuple[Sequence[object], str]] = {
        "ALLOWED_HOSTS": (settings.allowed_hosts, ","),
        "RAY_JOBS_WITHHOLD": (settings.ray_jobs_withhold, ","),
        "DATA_ROOTS": (settings.data_roots, os.pathsep),
        "MODEL_PACKAGES": (settings.model_packages, os.pathsep),
    }
    values = {
        name.upper(): str(value)
        for name, value in settings.model_dump(exclude={"token", "smtp_url"}).items()
        if name.upper() not in lists and value is not None
    }
    values |= {name: separator.join(str(item) for item in items) for name, (items, separator) in lists.items()}
    secrets = {"TOKEN": settings.token, "SMTP_URL": settings.smtp_url}
    values |= {name: secret.get_secret_value() for name, secret in secrets.items() if secret is not None}
    ours = {f"MUTRANSFER_{name}": value for name, value in values.items()}
    return {name: value for name, value in os.environ.items() if not name.startswith("MUTRANSFER_")} | ours


@contextlib.contextmanager
def one_per_home(home: Path) -> Iterator[None]:
    """Hold the home's lock. Raises ConflictError when another `up` has it."""
    with (home / "up.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            url = read_runtime(home).get("url", "starting up")
            raise ConflictError(f"`mutransfer up` runs already for {home} ({url}): use it, or another --home") from None
        yield
