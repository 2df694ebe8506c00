"""The claim loop: claim a study that nobody drives, start its driver, watch it until the study has ended.

The driver renews the lease, from its first breath on: until then, which takes long on a busy machine, the dispatcher
does. Otherwise it only watches the process. A driver that dies is tried again after a pause;
one that keeps dying without progress ends its study as failed, with the end of its log. Several dispatchers may share
one database: leases keep them apart.
"""

from dataclasses import dataclass
import os
from random import random
import socket
import threading
import time
from typing import Protocol

import structlog

from mutransfer.errors import ConflictError, LeaseLostError, TransientError
from service.db.leases import Claim
from service.db.states import StudyState
from service.dispatch.attempts import EX_TEMPFAIL, Failure, is_exhausted, retry_delay_seconds, without_progress
from service.dispatch.launchers import DriverHandle, Launcher
from service.dispatch.ledger import Ledger
from service.loops import repeat

POLL_SECONDS = 0.5
GRACE_SECONDS = 7.0  # for a driver to stop its trials; with what follows an end takes at most 10 s
STOP_GRACE_SECONDS = 10.0  # a driver looks for a cancellation or pause itself; after this it is stopped from outside
START_SECONDS = 180.0  # how long a driver may take to renew its lease for the first time
LOG_LINES = 20
#: What a study becomes whose driver is gone: there is nothing to stop any more.
STOPPED = {StudyState.CANCELLING: StudyState.CANCELLED, StudyState.PAUSING: StudyState.PAUSED}

log = structlog.get_logger(__name__)


class StudyLeases(Protocol):
    """What the loop needs of service.db.leases.Leases."""

    def claim_next(self, owner: str, ttl_seconds: float) -> Claim | None:
        """Claim a study that nobody drives."""

    def release(self, claim: Claim, *, delay_seconds: float = 0.0) -> None:
        """Give the claim back."""


class Finisher(Protocol):
    """Ends or pauses a study on behalf of a driver that cannot.

    Raises LeaseLostError when the claim is over, and ConflictError when the study cannot end so any more.
    """

    def __call__(self, claim: Claim, state: StudyState, error: str) -> None:
        """Record the final state, or PAUSED."""


@dataclass
class Driven:
    """A study that is being driven from here."""

    claim: Claim
    driver: DriverHandle
    expiry: float | None  # of the lease while we keep it for a starting driver, by the database's clock
    started_at: float  # time.monotonic()
    renewed_at: float  # time.monotonic(), by us
    asked_since: float | None = None  # time.monotonic() at which its cancellation or pause was first seen
    lapsed_since: float | None = None  # time.monotonic() at which its lease was first seen to be over


class Dispatcher:
    """Drives up to `limit` studies at once. Single-threaded: call `run`, or `tick` and `shutdown` from a test."""

    def __init__(
        self, *, leases: StudyLeases, ledger: Ledger, launcher: Launcher, finish: Finisher,
        ttl_seconds: float, limit: int = 1, owner: str = "",
    ) -> None:  # fmt: skip
        self._leases = leases
        self._ledger = ledger
        self._launcher = launcher
        self._finish = finish
        self._ttl_seconds = ttl_seconds
        self._limit = limit
        self._owner = owner or f"{socket.gethostname()}:{os.getpid()}"
        self._driven: dict[str, Driven] = {}
        self._transient_tries: dict[str, int] = {}

    @property
    def driving(self) -> tuple[str, ...]:
        """The ids of the studies being driven."""
        return tuple(self._driven)

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set, then end all drivers and give their studies back. Raises OutdatedError."""
        log.info("dispatcher started", owner=self._owner, limit=self._limit)
        try:
            repeat(self.tick, stop=stop, every_seconds=POLL_SECONDS)
        finally:
            self.shutdown()

    def tick(self) -> None:
        """One round: look after the drivers, then claim while there is room.

        Raises TransientError, and OutdatedError once the database has been migrated for another version.
        """
        self._ledger.check_schema()
        for driven in list(self._driven.values()):
            self._watch(driven)
        while len(self._driven) < self._limit:
            claim = self._leases.claim_next(self._owner, self._ttl_seconds)
            if claim is None:
                return
            self._start(claim)

    def shutdown(self) -> None:
        """End all drivers; their studies stay as they are and are claimed again by whoever comes next."""
        ending = [
            threading.Thread(target=driven.driver.end, kwargs={"grace_seconds": GRACE_SECONDS})
            for driven in self._driven.values()
        ]
        for thread in ending:
            thread.start()
        for thread in ending:
            thread.join()
        for study_id in self.driving:
            self._give_back(self._driven.pop(study_id).claim, delay_seconds=0.0)
        log.info("dispatcher stopped")

    def _start(self, claim: Claim) -> None:
        stale = self._driven.pop(claim.study_id, None)
        if stale is not None:  # our own driver hung and lost its lease: two drivers must not share the devices
            stale.driver.end(grace_seconds=0.0)
        if claim.state in STOPPED:  # cancelled or paused while nobody drove it: there is nothing to stop
            self._end(claim, STOPPED[claim.state], "")
            return
        log.info("driver starting", study=claim.study_id, epoch=claim.epoch)
        expiry, now = self._ledger.lease_expiry(claim), time.monotonic()
        try:
            driver = self._launcher.launch(claim)
            self._driven[claim.study_id] = Driven(
                claim=claim, driver=driver, expiry=expiry, started_at=now, renewed_at=now
            )  # fmt: skip
        except TransientError as error:
            log.warning("no driver can be started now", study=claim.study_id, reason=str(error))
            self._give_back_later(claim)
        except OSError as error:
            self._end(claim, StudyState.FAILED, f"the driver cannot be started: {error}")

    def _watch(self, driven: Driven) -> None:
        status = driven.driver.poll()
        state = self._ledger.state(driven.claim.study_id)
        if status is not None:
            del self._driven[driven.claim.study_id]
            self._ended(driven, status, state)
            return
        self._keep_lease(driven)
        self._end_if_hung(driven)
        self._insist_on_stop(driven, is_asked=state in STOPPED)

    def _keep_lease(self, driven: Driven) -> None:
        """Renew the lease for a driver that has not done so itself yet."""
        now = time.monotonic()
        if now - driven.started_at > START_SECONDS:
            driven.expiry = None  # it hangs: the lease expires, and that ends it
        if driven.expiry is not None and now - driven.renewed_at > self._ttl_seconds / 3:
            driven.expiry = self._ledger.renew_untouched(driven.claim, self._ttl_seconds, driven.expiry)
            driven.renewed_at = now

    def _end_if_hung(self, driven: Driven) -> None:
        """End a driver that has not renewed its lease for a whole lifetime of it, or whose study is another's now.

        The wait lets a machine that was suspended wake up: a driver that lives renews before it is over.
        """
        if not self._ledger.has_lapsed(driven.claim):
            driven.lapsed_since = None
            return
        now = time.monotonic()
        driven.lapsed_since = driven.lapsed_since or now
        if now - driven.lapsed_since > self._ttl_seconds:
            log.warning("driver hangs: ending it", study=driven.claim.study_id, epoch=driven.claim.epoch)
            driven.driver.end(grace_seconds=0.0)

    def _insist_on_stop(self, driven: Driven, *, is_asked: bool) -> None:
        now = time.monotonic()
        driven.asked_since = (driven.asked_since or now) if is_asked else None
        if driven.asked_since is not None and now - driven.asked_since > STOP_GRACE_SECONDS:
            log.warning("driver ignores the cancellation or pause: ending it", study=driven.claim.study_id)
            driven.driver.end(grace_seconds=GRACE_SECONDS)

    def _ended(self, driven: Driven, status: int, state: StudyState | None) -> None:
        claim = driven.claim
        log.info("driver ended", study=claim.study_id, epoch=claim.epoch, status=status, state=state)
        if state is None or state.is_final:
            self._transient_tries.pop(claim.study_id, None)
        elif state in STOPPED:
            self._end(claim, STOPPED[state], "")
        elif status == 0:  # it was asked to stop, and stopped
            self._give_back(claim, delay_seconds=0.0)
        elif status == EX_TEMPFAIL:
            self._give_back_later(claim)
        else:
            self._failed(driven, status)

    def _failed(self, driven: Driven, status: int) -> None:
        claim = driven.claim
        try:
            failures = self._ledger.record_failure(claim, status)
        except LeaseLostError:
            return  # another dispatcher has it already
        recent = without_progress(failures)
        if is_exhausted(failures):
            self._end(claim, StudyState.FAILED, _reason(recent, driven.driver.log_tail(LOG_LINES)))
        else:
            self._give_back(claim, delay_seconds=retry_delay_seconds(len(recent), draw=random()))

    def _end(self, claim: Claim, state: StudyState, error: str) -> None:
        log.info("ending study", study=claim.study_id, state=state, error=error)
        try:
            self._finish(claim, state, error)
        except LeaseLostError:
            log.info("another dispatcher has the study", study=claim.study_id)
        except ConflictError as conflict:  # a person was faster: paused or cancelled, it needs no end of ours
            log.info("the study rests or has ended already", study=claim.study_id, reason=str(conflict))
            self._give_back(claim, delay_seconds=0.0)

    def _give_back_later(self, claim: Claim) -> None:
        """After a fault of the machine: again after a pause, each time a longer one."""
        tries = self._transient_tries[claim.study_id] = self._transient_tries.get(claim.study_id, 0) + 1
        self._give_back(claim, delay_seconds=retry_delay_seconds(tries, draw=random()))

    def _give_back(self, claim: Claim, *, delay_seconds: float) -> None:
        try:
            self._leases.release(claim, delay_seconds=delay_seconds)
        except TransientError:  # then the lease expires by itself
            log.warning("database away: the lease is left to expire", study=claim.study_id)


def _reason(recent: list[Failure], tail: str) -> str:
    """What a person needs to know of a study that was given up."""
    how = ", ".join(failure.describe() for failure in recent)
    return f"the driver died {len(recent)} times in a row without progress ({how}). The end of its log:\n{tail}"
