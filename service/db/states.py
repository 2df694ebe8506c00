"""The states of studies, phases and trials, each transition with its cause."""

from enum import StrEnum

from mutransfer.errors import ConflictError


class StudyState(StrEnum):
    """The life of a study.

    queued ──▶ running ──▶ completed | failed | cancelled ──▶ queued (retried, extended)
      │           ├──────▶ pausing ──▶ paused ──▶ queued | cancelled
      │           ╰──────▶ cancelling ──▶ cancelled | completed | failed
      ╰──▶ paused | cancelled | failed
    """

    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen unless a person asks for it."""
        return self in (StudyState.COMPLETED, StudyState.FAILED, StudyState.CANCELLED)

    def to(self, after: "StudyState") -> "StudyState":
        """`after`, if it may follow this state. Raises ConflictError when it may not."""
        if after not in TRANSITIONS[self]:
            raise ConflictError(f"a {self} study cannot become {after}")
        return after


TRANSITIONS: dict[StudyState, frozenset[StudyState]] = {
    StudyState.QUEUED: frozenset(
        {
            StudyState.RUNNING,  # a driver that holds the lease has started
            StudyState.PAUSED,  # a person paused while nothing ran
            StudyState.CANCELLED,  # a person cancelled before anything ran
            StudyState.FAILED,  # no driver could be started
        }
    ),
    StudyState.RUNNING: frozenset(
        {
            StudyState.COMPLETED,  # every phase is recorded and the verdict is stored
            StudyState.PAUSING,  # a person paused: the driver must checkpoint its trials first
            StudyState.CANCELLING,  # a person cancelled: the driver must stop its trials first
            StudyState.FAILED,  # the driver met an error that no retry mends
        }
    ),
    StudyState.PAUSING: frozenset(
        {
            StudyState.PAUSED,  # the driver checkpointed its trials and left, or a dispatcher found it gone
            StudyState.RUNNING,  # a person resumed before the driver had left: whoever drives next goes on
            StudyState.CANCELLING,  # a person cancelled meanwhile
            StudyState.COMPLETED,  # everything had finished before the pause reached the driver
            StudyState.FAILED,  # the driver broke while stopping
        }
    ),
    StudyState.PAUSED: frozenset(
        {
            StudyState.QUEUED,  # a person resumed
            StudyState.CANCELLED,  # a person cancelled: nothing runs that must stop first
        }
    ),
    StudyState.CANCELLING: frozenset(
        {
            StudyState.CANCELLED,  # the driver stopped its trials, or a dispatcher found it gone
            StudyState.COMPLETED,  # everything had finished before the cancellation reached the driver
            StudyState.FAILED,  # the driver broke while stopping
        }
    ),
    StudyState.COMPLETED: frozenset(
        {
            StudyState.QUEUED,  # a person extended it, or wants a trial again that it had given up
        }
    ),
    StudyState.FAILED: frozenset(
        {
            StudyState.QUEUED,  # a person retried or extended it
        }
    ),
    StudyState.CANCELLED: frozenset(
        {
            StudyState.QUEUED,  # a person retried or extended it after all
        }
    ),
}


class PhaseState(StrEnum):
    """A phase is begun, then finished once."""

    RUNNING = "running"
    FINISHED = "finished"


class TrialState(StrEnum):
    """The life of a trial: planned → running → finished | diverged | failed; failed → planned for another study."""

    PLANNED = "planned"  # asked for, not started
    RUNNING = "running"  # an actor trains it, or was training it when its driver died
    FINISHED = "finished"  # a result, immutable
    DIVERGED = "diverged"  # a result, immutable
    FAILED = "failed"  # given up after its last attempt

    @property
    def has_result(self) -> bool:
        """Whether a result is stored."""
        return self in (TrialState.FINISHED, TrialState.DIVERGED)


class Scope(StrEnum):
    """What a caller may do; each scope includes the ones before it."""

    READ = "read"  # look at studies, trials, results and pages
    SUBMIT = "submit"  # change studies: submit, cancel, pause, retry, …
    ADMIN = "admin"  # tokens, projects and the audit log

    def allows(self, wanted: "Scope") -> bool:
        """Whether a caller of this scope may do what asks for `wanted`."""
        order = list(Scope)
        return order.index(self) >= order.index(wanted)
