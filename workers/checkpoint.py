"""Checkpoints of one trial: written atomically, verified by digest, resumed from the newest that is whole.

Layout: `<root>/<trial key>/<epoch>/step-N.pt`, each with its SHA-256 beside it in `step-N.sha256`, renamed into place
after the data: a checkpoint without a matching digest does not count. An epoch is the lease's: a driver that has lost
its lease writes into a lower one, and nobody reads from one above their own. Loaded with `weights_only=True`: a file
here can hold tensors and plain values, never code.
"""

from collections.abc import Iterator, Mapping
import hashlib
import io
import os
from pathlib import Path
import pickle
import re
import shutil
from typing import Any

import structlog
import torch

from mutransfer.errors import TransientError

KEEP = 2

_STEP_FILE = re.compile(r"step-(\d+)\.pt")
_log = structlog.get_logger(__name__)


class Checkpoints:
    """The checkpoints of one trial, as a worker of one epoch sees them."""

    def __init__(self, root: Path, *, key: str, epoch: int) -> None:
        """`root` is the storage that all workers see; `key` the trial's content key."""
        self._trial = root / key
        self._epoch = epoch
        self._own = self._trial / str(epoch)

    def save(self, step: int, state: Mapping[str, Any]) -> Path:
        """Write the state after `step` updates and drop all but the last two of this epoch.

        Raises TransientError when the storage takes no more; earlier checkpoints are then still there.
        """
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        content = buffer.getbuffer()
        path = self._own / f"step-{step}.pt"
        try:
            self._own.mkdir(parents=True, exist_ok=True)
            _write(path, content)
            _write(path.with_suffix(".sha256"), hashlib.sha256(content).hexdigest().encode())
        except OSError as error:
            raise TransientError(
                f"cannot write the checkpoint {path}: {error.strerror or error}; free space in the storage folder"
            ) from error
        self._drop_old()
        return path

    def load(self) -> dict[str, Any] | None:
        """The state with the most steps of any epoch up to our own, skipping what is cut short or corrupt.

        None when there is none. Tensors are on the CPU.
        """
        found = sorted(self._found(), key=lambda item: item[:2], reverse=True)
        for _, _, path in found:
            state = _read(path)
            if state is not None:
                return state
        return None

    def discard(self) -> None:
        """Remove all checkpoints of the trial: its result is stored."""
        shutil.rmtree(self._trial, ignore_errors=True)

    def _found(self) -> Iterator[tuple[int, int, Path]]:
        """(step, epoch, path) of every checkpoint that we may read, whole or not."""
        for folder in self._trial.glob("*"):
            if folder.name.isdecimal() and int(folder.name) <= self._epoch:
                for path in folder.glob("step-*.pt"):
                    if match := _STEP_FILE.fullmatch(path.name):
                        yield int(match[1]), int(folder.name), path

    def _drop_old(self) -> None:
        own = sorted(item for item in self._found() if item[1] == self._epoch)
        for _, _, path in own[:-KEEP]:
            path.with_suffix(".sha256").unlink(missing_ok=True)
            path.unlink(missing_ok=True)


def _write(path: Path, content: bytes | memoryview) -> None:
    """Write beside, flush to the disk, rename into place: readers see all of it or nothing."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = path.read_bytes()
        expected = path.with_suffix(".sha256").read_text()
    except OSError as error:
        _log.warning("checkpoint unreadable", path=str(path), error=str(error))
        return None
    if hashlib.sha256(content).hexdigest() != expected:
        _log.warning("checkpoint corrupt, falling back to the one before", path=str(path))
        return None
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        _log.warning("checkpoint refused", path=str(path), error=str(error))
        return None
    return state
