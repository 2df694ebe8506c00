"""What the page of one study shows, read in one snapshot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy.orm import Session

from mutransfer.errors import MutransferError, ScalingError
from mutransfer.facts import StudyFacts
from mutransfer.plan import Phase, PlanEstimate, estimate, phase_values
from mutransfer.recipe import Recipe, recipe
from mutransfer.result import StudyResult
from mutransfer.spec import StudySpec
from service.dashboard import audits, queries, training
from service.dashboard.training import Choice
from service.db import studies, trial_pages
from service.db.events import Event, EventKind
from service.db.states import PhaseState, StudyState
from service.db.studies import Tally
from service.db.tables import PhaseRow, StudyRow
from service.reports import numbers, words
from service.reports.cards import ArmCard, arm_cards
from service.reports.chart import Chart
from service.reports.edge_chart import edge_chart
from service.reports.figures import charts
from service.reports.palette import LIGHT, Theme
from service.reports.table import Table
from service.reports.tables import transfer_table
from service.studies.read import result_document

EVENTS_SHOWN = 40
_PRINTABLE_VOCAB = 97  # of the default tokenizer: for estimates before a worker has read the data
_PHASE_WORDS = {
    Phase.AUDIT: "the rules, checked",
    Phase.TUNE: "hyperparameters together",
    Phase.SEARCH: "at the proxies",
    Phase.TRANSFER: "to the targets",
    Phase.VERIFY: "the targets' own optima",
    Phase.VERDICT: "fit and judge",
}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One phase in the list of phases: `state` is planned, running or finished."""

    name: str
    words: str
    state: str
    started_at: float | None
    finished_at: float | None

    @property
    def seconds(self) -> float | None:
        """How long it took, None until it has finished."""
        return None if self.started_at is None or self.finished_at is None else self.finished_at - self.started_at


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a study is. `expected` trials are an estimate until the search has ended."""

    done: int
    expected: int
    failed: int
    steps: tuple[Step, ...]
    running: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class RecipeForm:
    """The recipe part of the page: what was asked, and the answer or what is wrong with the question."""

    width: int | None
    arm: str
    arms: tuple[str, ...]
    step: int
    presets: tuple[int, ...]
    recipe: Recipe | None
    problem: str


@dataclass(frozen=True, kw_only=True)
class StudyView:
    """Everything that a study's template reads."""

    row: StudyRow
    spec: StudySpec
    tally: Tally
    version: str
    beat: str
    result: StudyResult
    answer: words.Answer
    cards: tuple[ArmCard, ...]
    charts: tuple[Chart, ...]
    training: Chart
    edge: Chart
    audit: tuple[Chart, ...]
    audit_arm: str
    choice: Choice
    sizes: tuple[int, ...]
    transfer: Table
    progress: Progress
    recipe: RecipeForm
    conditions: tuple[tuple[str, str], ...]
    plan: PlanEstimate | None
    events: tuple[tuple[Event, str], ...]
    is_final: bool


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The query parameters of a study's page."""

    arm: str | None = None
    size: int | None = None
    recipe_width: int | None = None
    recipe_arm: str | None = None
    audit_arm: str | None = None


def version_of(row: StudyRow, tally: Tally) -> str:
    """Changes whenever the page's charts may: with every finished trial and every phase."""
    return f"{row.state}-{tally.phase or ''}-{tally.trials_done}-{tally.trials_failed}"


def beat_of(progress: Progress) -> str:
    """Changes whenever a running trial has come further."""
    return "-".join(str(trial["step"]) for trial in progress.running)


def study_view(session: Session, study_id: str, asked: Asked) -> StudyView:
    """Read one study. Raises NotFoundError."""
    row = studies.get(session, study_id)
    tally = studies.tallies(session, [study_id])[study_id]
    result = result_document(session, study_id)
    spec, state = StudySpec.model_validate(row.spec), StudyState(row.state)
    facts = StudyFacts.model_validate(row.facts) if row.facts else None
    choice = training.choose(result, spec, asked.arm, asked.size)
    plan = _plan(spec, facts)
    progress = _progress(session, row, spec, tally, plan)
    return StudyView(
        beat=beat_of(progress), row=row, spec=spec,
        tally=tally, version=version_of(row, tally), result=result, answer=words.answer(result),
        cards=arm_cards(result), charts=charts(result, spec), choice=choice, sizes=spec.axis.values,
        edge=edge_chart(result, spec, LIGHT),
        training=training.chart(session, result, choice, LIGHT), transfer=transfer_table(result),
        audit=audits.charts(session, spec, study_id, asked.audit_arm, LIGHT),
        audit_arm=audits.chosen_arm(session, spec, study_id, asked.audit_arm),
        progress=progress, recipe=_recipe_form(spec, result, facts, asked),
        conditions=words.conditions(spec), plan=plan, is_final=state.is_final,
        events=tuple((e, event_words(e)) for e in queries.last_events(session, study_id, EVENTS_SHOWN)),
    )  # fmt: skip


def _plan(spec: StudySpec, facts: StudyFacts | None) -> PlanEstimate | None:
    """The estimate, None for a model of the user's own whose size is not known yet."""
    try:
        return estimate(spec, vocab=facts.vocab if facts else _PRINTABLE_VOCAB)
    except ScalingError:
        return None


def _progress(session: Session, row: StudyRow, spec: StudySpec, tally: Tally, plan: PlanEstimate | None) -> Progress:
    begun = {phase.name: phase for phase in studies.phases(session, row.id)}
    expected = row.trials_expected or (plan.trials_expected if plan else 0)
    return Progress(
        done=tally.trials_done,
        expected=max(expected, tally.trials_planned) if not StudyState(row.state).is_final else tally.trials_planned,
        failed=tally.trials_failed,
        steps=tuple(
            _step(phase, begun.get(phase)) for phase in Phase if phase is Phase.VERDICT or phase_values(spec, phase)
        ),
        running=trial_pages.running(session, row.id) if row.state == StudyState.RUNNING else (),
    )


def _step(phase: Phase, begun: PhaseRow | None) -> Step:
    state = "planned" if begun is None else ("finished" if begun.state == PhaseState.FINISHED else "running")
    return Step(
        name=phase.value, words=_PHASE_WORDS[phase], state=state,
        started_at=begun.started_at if begun else None, finished_at=begun.finished_at if begun else None,
    )  # fmt: skip


def _recipe_form(spec: StudySpec, result: StudyResult, facts: StudyFacts | None, asked: Asked) -> RecipeForm:
    best = words.best_arm(result)
    names = tuple(arm.name for arm in result.arms)
    arm = asked.recipe_arm if asked.recipe_arm in names else (best.name if best else _first_mup(result))
    width = asked.recipe_width if asked.recipe_width is not None else max(spec.size_at(v)[0] for v in spec.axis.values)
    step = spec.model.head_dim or spec.model.heads or 1
    form = RecipeForm(
        width=width, arm=arm, arms=names, step=step, presets=_presets(spec, step), recipe=None, problem=""
    )
    if facts is None:
        return _with(form, problem="Appears when a worker has read the data and the search has recorded a rate.")
    try:
        return _with(form, found=recipe(spec, result, facts, width=width, arm=arm))
    except MutransferError as error:
        return _with(form, problem=str(error))


def _presets(spec: StudySpec, step: int) -> tuple[int, ...]:
    """Widths that people ask for: the largest of the study, and powers of two from there to four thousand."""
    largest = max(spec.size_at(value)[0] for value in spec.axis.values)
    powers = (2**power for power in range(6, 13))
    return (largest, *(width for width in powers if width > largest and width % step == 0))


def _first_mup(result: StudyResult) -> str:
    return next((arm.name for arm in result.arms if not words.is_control(arm)), result.arms[0].name)


def _with(form: RecipeForm, *, found: Recipe | None = None, problem: str = "") -> RecipeForm:
    return replace(form, recipe=found, problem=problem)


def page_charts(session: Session, study_id: str, asked: Asked, theme: Theme) -> tuple[Chart, ...]:
    """The charts of a study's page in page order. Raises NotFoundError."""
    result, spec = result_document(session, study_id), StudySpec.model_validate(studies.get(session, study_id).spec)
    chosen = training.choose(result, spec, asked.arm, asked.size)
    audit = audits.charts(session, spec, study_id, asked.audit_arm, theme)
    edge = edge_chart(result, spec, theme)
    return (*charts(result, spec, theme), edge, training.chart(session, result, chosen, theme), *audit)


def page_training(session: Session, study_id: str, asked: Asked, theme: Theme) -> Chart:
    """The training chart alone, of the arm asked for. Raises NotFoundError."""
    result = result_document(session, study_id)
    spec = StudySpec.model_validate(studies.get(session, study_id).spec)
    return training.chart(session, result, training.choose(result, spec, asked.arm, asked.size), theme)


WORDS = {
    EventKind.SUBMITTED: "submitted",
    EventKind.RUNNING: "a driver started",
    EventKind.FACTS: "data and environment recorded",
    EventKind.PAUSING: "pause asked for",
    EventKind.PAUSED: "paused",
    EventKind.RESUMED: "resumed",
    EventKind.CANCELLING: "cancellation asked for",
}


def event_words(event: Event) -> str:
    """One event as a phrase."""
    said = event.payload.get
    if event.kind in WORDS:
        return WORDS[event.kind]
    match event.kind:
        case EventKind.PHASE_STARTED:
            return f"phase {said('phase', '')} began"
        case EventKind.PHASE_FINISHED:
            return f"phase {said('phase', '')} finished"
        case EventKind.TRIAL_STARTED:
            return f"trial {str(said('key', ''))[:8]} started"
        case EventKind.TRIAL_RESULT:
            loss = said("loss_nats")
            outcome = f"loss {numbers.loss(loss)} nats" if isinstance(loss, float) else str(said("status", "finished"))
            return f"trial {str(said('key', ''))[:8]}: {outcome}"
        case EventKind.TRIAL_FAILED:
            return f"trial {str(said('key', ''))[:8]} failed, attempt {said('attempt', '?')}"
        case EventKind.DRIVER_FAILED:
            return f"a driver died with exit status {said('exit_status', '?')}; another takes over"
        case EventKind.REOPENED:
            return f"queued again ({said('by', 'retry')}), revision {said('revision', '?')}"
        case _:
            return f"study {said('state', 'finished')}"
