"""Which trials the training chart shows: at the recorded rate over all widths, or all rates at one width."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from mutransfer.result import ArmResult, StudyResult
from mutransfer.spec import StudySpec
from service.dashboard import queries
from service.db import trial_pages
from service.db.states import StudyState
from service.reports import words
from service.reports.chart import Chart
from service.reports.palette import Theme
from service.reports.training_chart import LivePoint, TrainingLine, training_chart

_MOST_LINES = 16


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The arm, and the width (or depth) whose rates are shown; None shows the recorded rate at all sizes."""

    arm: str
    size: int | None


def choose(result: StudyResult, spec: StudySpec, arm: str | None, size: int | None) -> Choice:
    """A choice that exists: the asked arm, else the recommended one, else the first; the asked size, else all."""
    names = [a.name for a in result.arms]
    best = words.best_arm(result)
    name = arm if arm in names else (best.name if best else names[0])
    return Choice(arm=name, size=size if size in spec.axis.values else None)


def chart(session: Session, result: StudyResult, choice: Choice, theme: Theme) -> Chart:
    """The training chart of a choice."""
    arm = next(arm for arm in result.arms if arm.name == choice.arm)
    finished = queries.finished_places(session, result.study.id, arm.name)
    places = (
        _at_one_size(finished, choice.size) if choice.size is not None else _at_recorded(arm, finished, result.axis)
    )
    found = queries.histories(session, result.study.id, arm.name, places)
    lines = [
        TrainingLine(
            arm=arm.name, size=h.axis_value, lr_octaves=h.lr_octaves, seed=h.seed, dashed=words.is_control(arm),
            history=h.history,
        )
        for h in found
    ]  # fmt: skip
    return training_chart(
        lines, theme, axis_name=result.axis, by_rate=choice.size is not None, live=_running(session, result, choice)
    )


def _running(session: Session, result: StudyResult, choice: Choice) -> list[LivePoint]:
    """The arm's trials that run now, of the chosen size where there is one."""
    if result.study.state not in (StudyState.RUNNING, StudyState.PAUSING, StudyState.CANCELLING):
        return []
    return [
        LivePoint(
            key=trial["key"], size=trial["axis_value"], lr_octaves=trial["lr_octaves"], seed=trial["seed"],
            step=trial["step"], train_loss_nats=trial["train_loss_nats"],
        )
        for trial in trial_pages.running(session, result.study.id)
        if trial["arm"] == choice.arm and choice.size in (None, trial["axis_value"]) and trial["train_loss_nats"]
    ]  # fmt: skip


def _at_one_size(finished: Sequence[tuple[int, float, int]], size: int) -> list[tuple[int, float, int]]:
    """The first seed of each rate at one size, thinned to what a chart can hold."""
    first: dict[float, tuple[int, float, int]] = {}
    for place in finished:
        if place[0] == size:
            first.setdefault(place[1], place)
    places = list(first.values())
    return places[:: 1 + len(places) // _MOST_LINES]


def _at_recorded(
    arm: ArmResult, finished: Sequence[tuple[int, float, int]], axis_name: str
) -> list[tuple[int, float, int]]:
    """At each size the trial nearest the recorded rate (while none is recorded, nearest that size's best)."""
    nearest: dict[int, tuple[float, tuple[int, float, int]]] = {}
    for place in finished:
        goal = arm.verdict.recorded_lr_octaves
        if goal is None:
            goal = _best(arm, place[0], axis_name)
        away = abs(place[1] - goal)
        if place[0] not in nearest or away < nearest[place[0]][0]:
            nearest[place[0]] = (away, place)
    return [place for _, place in (nearest[size] for size in sorted(nearest))]


def _best(arm: ArmResult, size: int, axis_name: str) -> float:
    curve = words.curve_at(arm, size, axis_name)
    finite = [] if curve is None else [(p.loss_nats, p.lr_octaves) for p in curve.points if p.loss_nats is not None]
    return min(finite)[1] if finite else 0.0
