"""Ray for one driver: a private cluster on this machine, or a place in one that the operator runs.

A private cluster listens on the loopback interface only and asks for a token that lives in this process and its
children. It ends with the driver, also when the driver is killed: the kernel tells its processes.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
import os
from pathlib import Path
import shlex
import shutil
import signal
import sys
import tempfile
from typing import Any

import ray
import structlog

from mutransfer.errors import TransientError
from service.processes import descendants, send
from workers.scratch import scratch

START_ATTEMPTS = 5

#: Ray's sockets lie about 65 characters below its folder, and a socket's path ends at 107.
_LONGEST_TEMP_DIR = 40
#: Our objects are a few kilobytes; Ray's default would claim 30 % of the memory.
_OBJECT_STORE_BYTES = 100 * 1024 * 1024

_log = structlog.get_logger(__name__)


@contextmanager
def ray_session(*, address: str, cpus: int | None) -> Iterator[Path | None]:
    """Ray until the block ends; yields the folder of a private one, for `abandon`.

    Call from the main thread: the kernel ends a private Ray with the thread that started it.

    Raises TransientError when Ray does not come up, as on a machine that is busy beyond measure.
    """
    others = frozenset(descendants(os.getpid()))
    with nullcontext() if address else scratch("ray", parent=_short_folder()) as folder:
        try:
            _start(_shared_options(address) if folder is None else _private_options(folder, cpus), others)
            yield folder
        finally:
            _end(others)


def abandon(folder: Path | None) -> None:
    """Kill a private Ray at once. The caller must exit at once as well: Ray's library ends a process that lost it."""
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
        send(descendants(os.getpid()), signal.SIGKILL)


def _start(options: Mapping[str, Any], others: Collection[int]) -> None:
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            ray.init(**options, log_to_driver=False, configure_logging=False)
            return
        except Exception as error:  # Ray raises a bare Exception when it is not up within 30 s
            _end(others)
            if attempt == START_ATTEMPTS:
                raise TransientError(f"Ray does not start: {error}") from error
            _log.warning("ray did not start: again", attempt=attempt, error=str(error))


def _end(others: Collection[int]) -> None:
    """Leave Ray, and leave no process of it but `others`: a start that failed forgets what it has started."""
    ray.shutdown()
    send([pid for pid in descendants(os.getpid()) if pid not in others], signal.SIGKILL)


def _shared_options(address: str) -> dict[str, Any]:
    return {"address": address}


def _private_options(folder: Path, cpus: int | None) -> dict[str, Any]:
    return {
        "address": "local",
        "num_cpus": cpus,
        "include_dashboard": False,
        "object_store_memory": _OBJECT_STORE_BYTES,
        "_temp_dir": str(folder),
        "_node_ip_address": "127.0.0.1",
        # Ray writes the interpreter unquoted into the shell command of a worker: a path with a space breaks there.
        "runtime_env": {} if (quoted := shlex.quote(sys.executable)) == sys.executable else {"py_executable": quoted},
    }


def _short_folder() -> str:
    folder = tempfile.gettempdir()
    return folder if len(folder) + len("/mt-ray-4194304-12345678") <= _LONGEST_TEMP_DIR else "/tmp"  # noqa: S108 - see above
