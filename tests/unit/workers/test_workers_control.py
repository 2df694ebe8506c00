"""Stopping: the reasons, the heartbeat that hears of them, and what happens when nobody listens."""

from collections.abc import Callable
import time

import pytest

from mutransfer.errors import LeaseLostError, OutdatedError, TransientError
from service.db.driver_store import Standing
from service.db.quotas import UNLIMITED, Grant
from service.db.states import StudyState
from workers import heartbeat as heartbeat_module
from workers.allowance import Allowance
from workers.control import Control, Stopped, StopReason
from workers.heartbeat import Heartbeat


class FakeStore:
    """What Heartbeat calls of DriverStore."""

    def __init__(self) -> None:
        self.renewals: list[float] = []
        self.standing_now = Standing(state=StudyState.RUNNING, revision=1)
        self.revision: int | None = 1
        self.fault: Exception | None = None
        self.is_timed = False

    def renew(self) -> None:
        if self.fault is not None:
            raise self.fault
        self.renewals.append(time.monotonic())

    def standing(self, *, timed: bool = False) -> Standing:
        assert timed is self.is_timed
        if self.fault is not None:
            raise self.fault
        return self.standing_now


def wait_until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Scene:
    def __init__(self, *, ttl: float, limit_hours: float | None = None, start: bool = True) -> None:
        self.store, self.control = FakeStore(), Control()
        self.grant = UNLIMITED
        self.allowance = Allowance(lambda _wanted, _running: self.grant)
        self.overdue: list[StopReason] = []
        self.heartbeat = Heartbeat(
            self.store, self.control, self.allowance, ttl_seconds=ttl, overdue=self.overdue.append,  # type: ignore[arg-type]
            limit_hours=limit_hours,
        )  # fmt: skip
        if start:
            self.heartbeat.start()


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(heartbeat_module, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(heartbeat_module, "GRACE_SECONDS", 0.2)
    return Scene(ttl=0.3)


def test_the_lease_is_renewed_every_third_of_its_time(scene: Scene) -> None:
    wait_until(lambda: len(scene.store.renewals) >= 4)
    scene.heartbeat.close()
    gaps = [b - a for a, b in zip(scene.store.renewals, scene.store.renewals[1:], strict=False)]
    assert all(gap >= 0.1 for gap in gaps)
    assert min(gaps) < 0.3, "renewed later than the lease lasts"
    assert scene.control.reason is None


def test_a_cancellation_is_heard_and_a_driver_that_stops_is_left_alone(scene: Scene) -> None:
    scene.store.standing_now = Standing(state=StudyState.CANCELLING, revision=1)
    wait_until(lambda: scene.control.reason is StopReason.CANCELLED)
    scene.heartbeat.close()
    time.sleep(0.3)
    assert scene.overdue == []


def test_a_driver_that_does_not_stop_is_ended(scene: Scene) -> None:
    scene.store.standing_now = Standing(state=StudyState.CANCELLING, revision=1)
    wait_until(lambda: scene.overdue == [StopReason.CANCELLED])


def test_a_lost_lease_stops_the_driver(scene: Scene) -> None:
    scene.store.fault = LeaseLostError("over")
    wait_until(lambda: scene.control.reason is StopReason.LEASE_LOST)
    wait_until(lambda: scene.overdue == [StopReason.LEASE_LOST])


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (Standing(state=StudyState.PAUSING, revision=1), StopReason.DRAIN),
        (Standing(state=StudyState.PAUSED, revision=1), StopReason.DRAIN),
        (Standing(state=StudyState.RUNNING, revision=2), StopReason.DRAIN),  # a trial is to be tried again
        (Standing(state=StudyState.FAILED, revision=1), StopReason.LEASE_LOST),  # a dispatcher gave it up
    ],
)
def test_what_a_person_does_to_the_study_is_heard(scene: Scene, now: Standing, reason: StopReason) -> None:
    wait_until(lambda: scene.store.renewals)
    time.sleep(0.1)
    assert scene.control.reason is None
    scene.store.standing_now = now
    wait_until(lambda: scene.control.reason is reason)
    scene.heartbeat.close()


def test_a_study_that_was_changed_before_the_first_beat_is_noticed(scene: Scene) -> None:
    scene.heartbeat.close()
    late = Scene(ttl=0.3, start=False)
    late.store.revision = None
    late.store.standing_now = Standing(state=StudyState.RUNNING, revision=2)
    late.heartbeat.start()
    wait_until(lambda: late.store.renewals)
    time.sleep(0.1)
    assert late.control.reason is None, "the driver has not read the study yet"
    late.store.revision = 1
    wait_until(lambda: late.control.reason is StopReason.DRAIN)
    late.heartbeat.close()


def test_a_migration_for_another_version_stops_the_driver(scene: Scene) -> None:
    scene.store.fault = OutdatedError("revision 9")
    wait_until(lambda: scene.control.reason is StopReason.OUTDATED)
    scene.heartbeat.close()


def test_a_study_whose_project_has_spent_its_hours_is_given_back_when_nothing_runs_any_more(scene: Scene) -> None:
    scene.allowance.want(4)
    scene.grant = Grant(slots=4)
    wait_until(lambda: scene.allowance.take(0))
    scene.grant = Grant(slots=1, is_spent=True)
    wait_until(lambda: not scene.allowance.take(1))
    time.sleep(0.1)
    assert scene.control.reason is None, "a trial runs, and may end"
    scene.grant = Grant(slots=0, is_spent=True)
    wait_until(lambda: not scene.allowance.take(0))
    time.sleep(0.1)
    assert scene.control.reason is None, "nothing waits to be started: the study can end"
    scene.allowance.note_hunger(is_hungry=True)
    wait_until(lambda: scene.control.reason is StopReason.DRAIN)
    scene.heartbeat.close()


def test_a_study_that_runs_for_longer_than_allowed_is_stopped(scene: Scene) -> None:
    scene.heartbeat.close()
    timed = Scene(ttl=0.3, limit_hours=0.5, start=False)
    timed.store.is_timed = True
    timed.store.standing_now = Standing(state=StudyState.RUNNING, revision=1, running_seconds=1799.0)
    timed.heartbeat.start()
    wait_until(lambda: timed.store.renewals)
    time.sleep(0.1)
    assert timed.control.reason is None
    timed.store.standing_now = Standing(state=StudyState.RUNNING, revision=1, running_seconds=1801.0)
    wait_until(lambda: timed.overdue == [StopReason.TIMEOUT])


def test_an_outage_stops_nothing(scene: Scene) -> None:
    scene.store.fault = TransientError("away")
    time.sleep(0.3)
    assert scene.control.reason is None
    known = len(scene.store.renewals)
    scene.store.fault = None
    wait_until(lambda: len(scene.store.renewals) > known)
    scene.heartbeat.close()


def test_the_first_reason_holds_but_a_lost_lease_overrides() -> None:
    control = Control()
    control.check()
    control.stop(StopReason.DRAIN)
    control.stop(StopReason.CANCELLED)
    assert control.reason is StopReason.DRAIN
    control.stop(StopReason.LEASE_LOST)
    with pytest.raises(Stopped) as caught:
        control.check()
    assert caught.value.reason is StopReason.LEASE_LOST
    assert not isinstance(caught.value, Exception)


def test_patience_repeats_transient_faults_until_told_to_stop() -> None:
    control, tries = Control(), []

    def work() -> int:
        tries.append(1)
        if len(tries) < 3:
            raise TransientError("not yet")
        return 7

    assert control.patiently(work, every_seconds=0.01) == 7
    assert len(tries) == 3

    def never() -> None:
        control.stop(StopReason.DRAIN)
        raise TransientError("never")

    with pytest.raises(Stopped):
        control.patiently(never, every_seconds=60.0)
