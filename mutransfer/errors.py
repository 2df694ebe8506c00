"""Every error that mutransfer raises on purpose.

    MutransferError
    ├── SpecError            the user's study, CSV or options are wrong: names each field and what to change (HTTP 422)
    ├── NotFoundError        no such study, trial or arm (HTTP 404)
    ├── ConflictError        the request contradicts what is already stored (HTTP 409)
    │   └── RevisedError     a person changed the study under its driver, which must make room for one that knows
    ├── AccessError          no right token, host or origin (HTTP 401/403)
    ├── ScalingError         a parameter has no role or no rule, or a rule is refused (a programming or model error)
    ├── LeaseLostError       this driver no longer owns its study; it must stop and write nothing
    ├── OutdatedError        this process is of another version than the database; it must stop and write nothing
    └── TransientError       the machine's fault (database away, node lost): retried, never the user's concern

Anything else that escapes is a bug and is reported as one.
"""

from collections.abc import Sequence
from dataclasses import dataclass


class MutransferError(Exception):
    """Base of all deliberate errors."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing wrong with an input: `field` is a dotted path (`arms.0.optimizer`), `message` says what to change."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class SpecError(MutransferError):
    """The input is wrong. Carries every problem found, so that one round trip shows them all."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(str(problem) for problem in self.problems))

    @classmethod
    def at(cls, field: str, message: str) -> "SpecError":
        """A SpecError with the single problem `message` at `field`."""
        return cls([Problem(field=field, message=message)])


class NotFoundError(MutransferError):
    """What was asked for does not exist."""


class ConflictError(MutransferError):
    """The request contradicts stored state, such as an idempotency key reused for another body."""


class RevisedError(ConflictError):
    """The study is at another revision than its driver works on."""


class AccessError(MutransferError):
    """The caller may not do this."""


class ScalingError(MutransferError):
    """A parameter that no rule covers, or a combination that the rules refuse (the message says why)."""


class LeaseLostError(MutransferError):
    """Another driver owns this study now."""


class OutdatedError(MutransferError):
    """The database was migrated for another version of this code."""


class TransientError(MutransferError):
    """A fault of the machine that a retry may mend."""
