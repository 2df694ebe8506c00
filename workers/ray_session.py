"""Ray for one driver: a private cluster on this machine, or a place in one that the operator runs.

A private cluster listens on the loopback interface only and asks for a token that lives in this process and its
children. It ends with the driver, also when the driver is killed: the kernel tells its processes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
import os
from pathlib import Path
import secrets
import shutil
import tempfile

#: Ray's sockets lie about 65 characters below its folder, and a socket's path ends at 107.
_LONGEST_TEMP_DIR = 40
#: Our objects are a few kilobytes; Ray's default would claim 30 % of the memory.
_OBJECT_STORE_BYTES = 100 * 1024 * 1024

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints a table whatever the verbosity
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # Tune's own state is never read again
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


def prepare_environment(address: str) -> None:
    """Set what Ray reads from the environment. Call before anything imports ray; what the operator set stays."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if address:
        known = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ
        os.environ.setdefault("RAY_AUTH_MODE", "token" if known else "disabled")
        return
    os.environ.pop("RAY_ADDRESS", None)
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


@contextmanager
def ray_session(*, address: str, cpus: int | None) -> Iterator[None]:
    """Ray until the block ends. Call from the main thread: the kernel ends Ray with the thread that started it."""
    import ray

    if address:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
        try:
            yield
        finally:
            ray.shutdown()
        return
    folder = Path(tempfile.mkdtemp(prefix="mt-ray-", dir=_short_folder()))
    try:
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            _temp_dir=str(folder),
            _node_ip_address="127.0.0.1",
        )
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _short_folder() -> str:
    folder = tempfile.gettempdir()
    return folder if len(folder) + len("/mt-ray-12345678") <= _LONGEST_TEMP_DIR else "/tmp"  # noqa: S108 - see above
