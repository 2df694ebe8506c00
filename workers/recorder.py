"""Writes outcomes of trials to the database from a thread of its own, so that an outage never stops training.

What must not be lost (results, failures) is written in order and again until it is in; a result that cannot be written
at once is spooled to `<storage>/spool/<study>/<key>.json` as well, where the next driver finds it should this one die.
What is for eyes only (started, progress) is written at most once a second and forgotten during an outage.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import takewhile
import os
from pathlib import Path
import threading
import time

import structlog

from mutransfer.errors import TransientError
from mutransfer.trial import TrialResult
from service.db.driver_store import DriverStore
from workers.checkpoint import Checkpoints
from workers.failures import Fault

PROGRESS_SECONDS = 1.0
RETRY_SECONDS = 1.0
BATCH = 100  # results a transaction, at most: one wait for the disk serves them all
_SETTLE_SECONDS = 0.05

_log = structlog.get_logger(__name__)


class Spool:
    """Results of one study on disk, waiting for the database."""

    def __init__(self, storage: Path, study_id: str) -> None:
        """`storage` is the folder that all drivers of the study see."""
        self._folder = storage / "spool" / study_id

    def put(self, key: str, result: TrialResult) -> None:
        """Write a result, whole or not at all. A full disk is logged: the result is still in memory."""
        path = self._path(key)
        if path.exists():
            return
        temporary = path.with_suffix(f".{os.getpid()}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("w") as file:
                file.write(result.model_dump_json())
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            _log.error("cannot spool a result: free space", path=str(path), error=str(error))

    def items(self) -> Iterator[tuple[str, TrialResult]]:
        """(key, result) of everything spooled; what cannot be read is left out with a warning.

        A file that holds no result is put aside as `*.unreadable`: its place is its trial's next result's.
        """
        for path in sorted(self._folder.glob("*.json")):
            try:
                yield path.stem, TrialResult.model_validate_json(path.read_text())
            except (OSError, ValueError) as error:  # no such bytes, no such text, no such result
                _log.warning("a spooled result is unreadable: its trial runs again", path=str(path), error=str(error))
                _put_aside(path)

    def remove(self, key: str) -> None:
        """Forget a result that the database has."""
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"


def _put_aside(path: Path) -> None:
    try:
        path.replace(path.with_suffix(".unreadable"))
    except OSError as error:
        _log.error("a spooled file cannot be put aside", path=str(path), error=str(error))


@dataclass(frozen=True, kw_only=True)
class _Result:
    key: str
    result: TrialResult


@dataclass(frozen=True, kw_only=True)
class _Failure:
    key: str
    attempt: int
    traceback: str
    final: bool
    fault: Fault


@dataclass(kw_only=True)
class _View:
    """What watchers see of a running trial; `told` is whether its start is in the database."""

    attempt: int
    told: bool = False
    progress: tuple[int, int, float | None] | None = None


@dataclass(kw_only=True)
class _Inbox:
    durable: deque[_Result | _Failure] = field(default_factory=deque)
    views: dict[str, _View] = field(default_factory=dict)
    closing: bool = False


class Recorder:
    """Start it with `start`, end it with `close`. Its methods return at once and may be called from one thread."""

    def __init__(self, store: DriverStore, *, spool: Spool, checkpoints: Path, epoch: int) -> None:
        self._store = store
        self._spool = spool
        self._checkpoints = checkpoints
        self._epoch = epoch
        self._inbox = _Inbox()
        self._wake = threading.Condition()
        self._error: BaseException | None = None
        self._views_written = 0.0
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    def start(self) -> None:
        """Begin to write; results that an earlier driver left in the spool come first."""
        self._inbox.durable.extend(_Result(key=key, result=result) for key, result in self._spool.items())
        self._thread.start()

    def close(self, *, timeout_seconds: float) -> bool:
        """Write what is left and stop. Returns whether everything is in the database."""
        with self._wake:
            self._inbox.closing = True
            self._wake.notify_all()
        self._thread.join(timeout_seconds)
        return not self._inbox.durable and self._error is None

    def check(self) -> None:
        """Raises what ended the recorder: LeaseLostError, or a bug."""
        if self._error is not None:
            raise self._error

    def settled(self) -> bool:
        """Whether all results and failures so far are in the database; waits a moment for it."""
        with self._wake:
            self._wake.wait_for(lambda: not self._inbox.durable, timeout=_SETTLE_SECONDS)
            return not self._inbox.durable

    def started(self, key: str, *, attempt: int) -> None:
        """An actor has begun an attempt (from 1)."""
        with self._wake:
            self._inbox.views[key] = _View(attempt=attempt)

    def progress(self, key: str, *, step: int, steps: int, train_loss_nats: float | None) -> None:
        """A running trial has taken `step` of `steps` steps."""
        with self._wake:
            if view := self._inbox.views.get(key):
                view.progress = (step, steps, train_loss_nats)

    def result(self, key: str, result: TrialResult) -> None:
        """A trial has ended."""
        self._put(_Result(key=key, result=result))

    def failure(
        self, key: str, *, attempt: int, traceback: str, final: bool, fault: Fault = Fault.TRIAL
    ) -> None:  # fmt: skip
        """An attempt has failed."""
        self._put(_Failure(key=key, attempt=attempt, traceback=traceback, final=final, fault=fault))

    def _put(self, item: _Result | _Failure) -> None:
        with self._wake:
            self._inbox.views.pop(item.key, None)
            self._inbox.durable.append(item)
            self._wake.notify_all()

    def _run(self) -> None:
        try:
            while not self._finished():
                self._round()
        except BaseException as error:  # noqa: BLE001 - a thread's edge: check() raises it where it is handled
            self._error = error
            self._spool_waiting()  # the lease is lost: a later driver of the study stores what we may not

    def _finished(self) -> bool:
        with self._wake:
            self._wake.wait_for(lambda: self._inbox.durable or self._inbox.closing, timeout=PROGRESS_SECONDS)
            return self._inbox.closing and not self._inbox.durable

    def _round(self) -> None:
        try:
            self._write_durable()
            self._write_views()
        except TransientError as error:
            _log.warning(
                "the database does not answer: results wait", waiting=len(self._inbox.durable), error=str(error)
            )
            self._sit_out()

    def _write_durable(self) -> None:
        while self._inbox.durable:
            item = self._inbox.durable[0]
            written = 1
            if isinstance(item, _Result):
                written = self._write_results()
            else:
                self._store.record_failure(
                    item.key, attempt=item.attempt, traceback=item.traceback, final=item.final, fault=item.fault
                )
            with self._wake:
                for _ in range(written):
                    self._inbox.durable.popleft()
                self._wake.notify_all()

    def _write_results(self) -> int:
        """Write the results that wait before any failure, in one transaction; returns how many."""
        with self._wake:
            waiting = list(takewhile(lambda item: isinstance(item, _Result), self._inbox.durable))
        items = [item for item in waiting[:BATCH] if isinstance(item, _Result)]
        first = {item.key: item.result for item in reversed(items)}  # of two results of one trial the earlier counts
        stored = self._store.record_results({item.key: first[item.key] for item in items})
        for key in first:
            if key not in stored:
                _log.warning("a spooled result belongs to no trial of this database", trial=key)
            self._spool.remove(key)
            Checkpoints(self._checkpoints, key=key, epoch=self._epoch).discard()
        return len(items)

    def _write_views(self) -> None:
        if time.monotonic() - self._views_written < PROGRESS_SECONDS:
            return
        self._views_written = time.monotonic()
        with self._wake:
            views = dict(self._inbox.views)
        for key, view in views.items():
            if not view.told:
                self._store.trial_started(key, attempt=view.attempt)
                view.told = True
            progress, view.progress = view.progress, None
            if progress is not None:
                step, steps, loss = progress
                self._store.trial_progress(key, step=step, steps=steps, train_loss_nats=loss)

    def _sit_out(self) -> None:
        """The database is away: put results where a successor finds them, and wait a little."""
        self._spool_waiting()
        time.sleep(RETRY_SECONDS)

    def _spool_waiting(self) -> None:
        with self._wake:
            waiting = [item for item in self._inbox.durable if isinstance(item, _Result)]
        for item in waiting:
            self._spool.put(item.key, item.result)
