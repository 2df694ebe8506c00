"""What a visitor may do to a study from its page. All of it goes through the API; this says which buttons stand."""

from dataclasses import dataclass

from mutransfer.spec import StudySpec
from service.db.actors import current_actor
from service.db.states import Scope, StudyState

_AT_REST = (StudyState.PAUSING, StudyState.PAUSED)
_STOPS = (StudyState.QUEUED, StudyState.RUNNING, *_AT_REST)
_FAILED = (StudyState.FAILED, StudyState.CANCELLED)


@dataclass(frozen=True, kw_only=True)
class Actions:
    """Which buttons a study's page has. `clone` leads to the submit page, which starts from the study's text."""

    cancel: bool
    pause: bool
    resume: bool
    retry: bool
    priority: bool
    extend: bool
    clone: bool

    @property
    def any(self) -> bool:
        """Whether there is a button at all."""
        return any((self.cancel, self.pause, self.resume, self.retry, self.priority, self.extend, self.clone))


@dataclass(frozen=True, kw_only=True)
class ExtendField:
    """One field of the dialog that extends a study. `path` is the spec's; `kind` is list or number."""

    path: str
    label: str
    hint: str
    value: str
    kind: str


def may_change() -> bool:
    """Whether the visitor may change studies at all."""
    return current_actor().scope.allows(Scope.SUBMIT)


def actions(state: StudyState, *, allowed: bool, can_clone: bool) -> Actions:
    """The buttons of a study in `state` for a visitor who may (`allowed`) change it."""
    return Actions(
        cancel=allowed and state in _STOPS,
        pause=allowed and state in (StudyState.QUEUED, StudyState.RUNNING),
        resume=allowed and state in _AT_REST,
        retry=allowed and state in _FAILED,
        priority=allowed and state in _STOPS,
        extend=allowed and state.is_final,
        clone=allowed and can_clone,
    )


def extend_fields(spec: StudySpec) -> tuple[ExtendField, ...]:
    """What an extension may ask for, with what the study has now."""
    axis = "widths" if spec.depth is None else "depth"
    noun = spec.axis_name
    rates = spec.search.lr_octaves
    return (
        ExtendField(
            path=f"{axis}.targets", label=f"Target {noun}s", kind="list",
            hint="add more: what is there stays", value=", ".join(str(size) for size in spec.axis.targets),
        ),
        ExtendField(
            path="search.seeds.max", label="Seeds at most", kind="number",
            hint="more seeds make intervals narrower", value=str(spec.search.seeds.max),
        ),
        ExtendField(
            path="search.lr_octaves.limit", label="Limits of the search", kind="list",
            hint="octaves, lowest and highest: −12 is 2⁻¹²", value=", ".join(f"{bound:g}" for bound in rates.limit),
        ),
    )  # fmt: skip
