"""The states of nights, each transition with its cause, and the policies of schedules."""

from enum import StrEnum

from mutransfer.errors import ConflictError


class Concurrency(StrEnum):
    """What a slot does while the night before still runs."""

    SKIP = "skip"  # the slot passes, and says so
    QUEUE = "queue"  # it runs once the other has ended; one slot may wait, further ones are skipped
    REPLACE = "replace"  # the other is cancelled


class BaselinePolicy(StrEnum):
    """How a schedule gets its baseline. A baseline pinned by hand stays under each of them until it is unpinned."""

    PINNED = "pinned"  # by hand only
    FIRST = "first"  # the first completed night
    PROMOTE = "promote"  # the first, and after so many clean nights in a row the newest of them


class ChannelKind(StrEnum):
    """How a channel is reached."""

    WEBHOOK = "webhook"  # JSON, signed
    SLACK = "slack"  # JSON as Slack's incoming webhooks take it (and Mattermost's, Discord's /slack, …)
    EMAIL = "email"


class NightEvent(StrEnum):
    """What a channel may want to hear of."""

    FLAGGED = "flagged"  # a night differs from its baseline
    FAILED = "failed"  # a night's study failed, was cancelled or refused; or the schedule had to be paused
    RECOVERED = "recovered"  # a night without a flag after one that was flagged or failed
    CLEAN = "clean"  # any other night without a flag


class DeliveryState(StrEnum):
    """waiting ──▶ delivered | given_up; given_up ──▶ waiting when a person says so."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"


class NightState(StrEnum):
    """The life of a night.

    waiting ──▶ running ──▶ judged | failed
       ╰──────▶ skipped | failed
    """

    WAITING = "waiting"
    RUNNING = "running"
    JUDGED = "judged"
    FAILED = "failed"
    SKIPPED = "skipped"

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen."""
        return not TRANSITIONS[self]

    def to(self, after: "NightState") -> "NightState":
        """`after`, if it may follow this state. Raises ConflictError when it may not."""
        if after not in TRANSITIONS[self]:
            raise ConflictError(f"a {self} night cannot become {after}")
        return after


TRANSITIONS: dict[NightState, frozenset[NightState]] = {
    NightState.WAITING: frozenset(
        {
            NightState.RUNNING,  # the night before has ended: the study is submitted
            NightState.SKIPPED,  # another night had not ended, or the schedule was paused meanwhile
            NightState.FAILED,  # the study was refused: this version takes the template no longer, a project's limit, …
        }
    ),
    NightState.RUNNING: frozenset(
        {
            NightState.JUDGED,  # the study has completed and was compared with the baseline
            NightState.FAILED,  # the study failed or was cancelled: there is nothing to compare
        }
    ),
    NightState.JUDGED: frozenset(),
    NightState.FAILED: frozenset(),
    NightState.SKIPPED: frozenset(),
}
