"""A study under hands that do anything at any time, and may crash at a commit: a Hypothesis state machine."""

from collections.abc import Callable
from contextlib import suppress

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import select

from benchmarks.chaos.lives import Crash, End, Life, Tally
from mutransfer.errors import ConflictError, LeaseLostError
from service.db import actions, studies
from service.db.driver_store import DriverStore
from service.db.session import Sessions, reading
from service.db.states import TRANSITIONS, StudyState
from service.db.tables import LeaseRow
from tests import study_builders as build

MAX_ATTEMPTS = 3
WAYS = st.sampled_from(["", "", "before", "after"])
TRIAL = st.integers(0, 2)
People = Callable[..., object]
ACTIONS: dict[str, People] = {
    "pause": actions.pause, "resume": actions.resume, "cancel": studies.cancel, "retry": actions.retry,
}  # fmt: skip


def machine_on(sessions: Sessions, wanted: End, tally: Tally) -> type[RuleBasedStateMachine]:
    """The machine over one database; every example is a study of its own."""
    return type("StudyMachine", (StudyMachine,), {"sessions": sessions, "wanted": wanted, "tally": tally})


class StudyMachine(RuleBasedStateMachine):
    """Drivers, people and crashes in any order. At the end one driver brings the study home."""

    sessions: Sessions
    wanted: End
    tally: Tally

    def __init__(self) -> None:
        super().__init__()
        self.life = Life(self.sessions)
        self.store: DriverStore | None = None
        self.stale: list[DriverStore] = []
        self.before = self.life.state()
        self.seen: dict[str, object] = {}
        self.tally.lives += 1

    def do(self, work: Callable[[], object], way: str) -> None:
        """Do something that may be refused, or die on the way; a driver that dies is gone."""
        self.tally.steps += 1
        if way:
            self.life.crash.plan(0, before=way == "before")
        try:
            # What is refused has no effect: the invariants look.
            with suppress(ConflictError), self.life.crash.watching():
                work()
        except Crash:
            self.tally.before += way == "before"
            self.tally.after += way == "after"
            self._bury()
        finally:
            self.life.crash.forget()

    def _bury(self) -> None:
        if self.store is not None:
            self.stale.append(self.store)
            self.store = None

    def drive(self, work: Callable[[DriverStore], object], way: str) -> None:
        """Something that the driver does."""
        store = self.store
        assert store is not None
        self.do(lambda: work(store), way)

    @rule(way=WAYS)
    def claim(self, way: str) -> None:
        """A dispatcher finds the lease expired, whether its driver lives or not."""

        def work() -> None:
            claim = self.life.claim()
            self._bury()
            if claim is not None:
                self.store = self.life.store(claim)

        self.do(work, way)

    @precondition(lambda self: self.store is not None)
    @rule(way=WAYS)
    def begin(self, way: str) -> None:
        """The driver starts."""

        def work(store: DriverStore) -> None:
            if store.mark_running() is StudyState.RUNNING:
                store.begin_phase("search")
                store.plan_trials("search", self.life.planned)

        self.drive(work, way)

    @precondition(lambda self: self.store is not None)
    @rule(number=TRIAL, way=WAYS)
    def result(self, number: int, way: str) -> None:
        """A trial ends; perhaps it has ended before, and with another loss."""
        key = self.life.planned[number].key
        loss = 9.0 if key in self.seen else 2.0 + number
        if self._is_planned(key):
            self.drive(lambda store: store.record_result(key, build.result(loss)), way)

    @precondition(lambda self: self.store is not None)
    @rule(number=TRIAL, attempt=st.integers(1, MAX_ATTEMPTS - 1), way=WAYS)
    def failure(self, number: int, attempt: int, way: str) -> None:
        """An attempt fails."""
        key = self.life.planned[number].key
        if self._is_planned(key):
            self.drive(lambda store: store.record_failure(key, attempt=attempt, traceback="x", final=False), way)

    @precondition(lambda self: self.store is not None and len(self.seen) == len(self.life.planned))
    @rule(way=WAYS)
    def finish(self, way: str) -> None:
        """The driver has everything."""

        def work(store: DriverStore) -> None:
            store.finish_phase("search", {"recorded": {}})
            store.finish("completed", result=self.life.document())

        self.drive(work, way)

    @precondition(lambda self: self.store is not None)
    @rule(way=WAYS)
    def stop(self, way: str) -> None:
        """The driver leaves, or ends a study that is being cancelled."""

        def work(store: DriverStore) -> None:
            if self.life.state() is StudyState.CANCELLING:
                store.finish("cancelled", result=None)
            else:
                store.leave()

        self.drive(work, way)
        self._bury()

    @precondition(lambda self: self.store is not None)
    @rule(way=WAYS)
    def fail(self, way: str) -> None:
        """The driver meets an error that no retry mends."""
        self.drive(lambda store: store.finish("failed", result=None, error="broken"), way)

    @rule(name=st.sampled_from(sorted(ACTIONS)), way=WAYS)
    def person(self, name: str, way: str) -> None:
        """A person presses a button."""

        def work() -> None:
            with self.sessions.begin() as session:
                ACTIONS[name](session, self.life.study_id)

        self.do(work, way)

    @precondition(lambda self: bool(self.stale))
    @rule(which=st.integers(0, 1000), number=TRIAL, kind=st.sampled_from(["result", "failure", "finish", "renew"]))
    def late(self, which: int, number: int, kind: str) -> None:
        """A driver that was taken for dead writes after all. It may, until the lease has been given to another."""
        store, key = self.stale[which % len(self.stale)], self.life.planned[number].key
        if not self._is_over(store):
            return
        writes: dict[str, Callable[[], object]] = {
            "result": lambda: store.record_result(key, build.result(7.0)),
            "failure": lambda: store.record_failure(key, attempt=1, traceback="late", final=True),
            "finish": lambda: store.finish("failed", result=None, error="late"),
            "renew": store.renew,
        }
        self.tally.stale += 1
        try:
            writes[kind]()
        except LeaseLostError:
            return
        self.tally.stale_accepted += 1

    @invariant()
    def only_legal_transitions(self) -> None:
        """The state has stayed or made one allowed step; results stay as they are."""
        now, results = self.life.state(), self.life.results()
        if now is not self.before and now not in TRANSITIONS[self.before]:
            self.tally.illegal += 1
        self.tally.changed += sum(results.get(key) != result for key, result in self.seen.items())
        self.before, self.seen = now, results

    def teardown(self) -> None:
        """Bring it home without further faults."""
        self.life.crash.forget()
        for _ in range(6):
            state = self.life.state()
            if state is StudyState.COMPLETED:
                break
            self._help(state)
        self.only_legal_transitions()
        self.tally.other_ends += self.life.end() != self.wanted

    def _help(self, state: StudyState) -> None:
        with self.sessions.begin() as session:
            if state in (StudyState.PAUSED, StudyState.PAUSING):
                actions.resume(session, self.life.study_id)
            elif state in (StudyState.FAILED, StudyState.CANCELLED):
                actions.retry(session, self.life.study_id)
        self.before = self.life.state()
        if (claim := self.life.claim()) is not None:
            store = self.life.store(claim)
            if claim.state is StudyState.CANCELLING:
                store.finish("cancelled", result=None)
            else:
                self.life.drive(store)
        self.before = self.life.state()

    def _is_planned(self, key: str) -> bool:
        return key in self._planned_keys()

    def _planned_keys(self) -> set[str]:
        store = self.store
        return set() if store is None else {item.key for item in store.unfinished()} | set(self.seen)

    def _is_over(self, store: DriverStore) -> bool:
        with reading(self.sessions) as session:
            epoch = session.scalars(select(LeaseRow.epoch).where(LeaseRow.study_id == self.life.study_id)).one()
        return bool(epoch > store._epoch)
