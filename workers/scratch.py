"""Temporary folders of drivers: named after their process, so that the next driver clears what a killed one left."""

from collections.abc import Iterator
from contextlib import contextmanager
import os
from pathlib import Path
import re
import shutil
import tempfile

_NAME = re.compile(r"mt-(?:ray|tune)-(\d+)-\w+")


@contextmanager
def scratch(kind: str, *, parent: str | None = None) -> Iterator[Path]:
    """A folder `mt-KIND-PID-RANDOM` in the temporary directory, gone afterwards."""
    root = Path(parent or tempfile.gettempdir())
    _clear_stale(root)
    folder = Path(tempfile.mkdtemp(prefix=f"mt-{kind}-{os.getpid()}-", dir=root))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _clear_stale(root: Path) -> None:
    for folder in root.glob("mt-*"):
        if (match := _NAME.fullmatch(folder.name)) and not _is_alive(int(match[1])):
            shutil.rmtree(folder, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
