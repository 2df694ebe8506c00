"""The pages of a study's trials: the list, and one trial with its training curve and, if it failed, the traceback."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite
import re
from typing import Annotated
from urllib.parse import quote

from fastapi import Query, Request, Response
from sqlalchemy.orm import Session

from mutransfer.spec import Parametrization, StudySpec
from mutransfer.trial import TrialResult
from service.dashboard import answers, trial_queries
from service.dashboard.actions import may_change
from service.dashboard.frame import MAX_TEXT, Frame, Route
from service.dashboard.trial_queries import TrialFilters, parse_place
from service.db import studies, trial_pages
from service.db.states import TrialState
from service.db.tables import StudyRow
from service.db.trial_pages import StudyTrial
from service.reports.chart import Chart
from service.reports.palette import LIGHT, THEMES, Theme
from service.reports.training_chart import TrainingLine, training_chart

_Text = Annotated[str | None, Query(max_length=MAX_TEXT)]
_Size = Annotated[str | None, Query(max_length=12)]
_EXPERIMENT = re.compile(r"^(.*/#/experiments/[^/]+)/runs/[^/]+$")
TAG_TRIAL = "mutransfer.trial"  # the tag that the exporter gives a trial's run


def _octaves(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if isfinite(value) else None


def mlflow_search(study_url: str, key: str) -> str | None:
    """Where MLflow shows the run of one trial; None while its study has no run there."""
    found = _EXPERIMENT.match(study_url)
    wanted = f"tags.`{TAG_TRIAL}` = '{key}'"
    return None if found is None else f"{found[1]}?searchFilter={quote(wanted)}"


@dataclass(frozen=True, kw_only=True)
class TrialView:
    """Everything that a trial's template reads."""

    study: StudyRow
    trial: StudyTrial
    status: TrialState
    result: TrialResult | None
    chart: Chart
    may_retry: bool
    mlflow: str | None


class Trials:
    """The handlers."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def list(
        self, request: Request, study_id: str, arm: _Text = None, size: _Size = None, lr: _Size = None,
        status: _Text = None, after: Annotated[str | None, Query(max_length=300)] = None,
    ) -> Response:  # fmt: skip
        """Trials of a study, a hundred a page."""
        filters = TrialFilters(
            arm=arm or None, size=answers.number(size),
            lr_octaves=_octaves(lr), status=TrialState(status) if status in list(TrialState) else None,
            after=parse_place(after),
        )  # fmt: skip

        def answer(session: Session) -> Response:
            study = studies.get(session, study_id)
            lines, more = trial_queries.list_trials(session, study_id, filters)
            return self._frame.html(
                request, "trials.html", here="home", study=study, spec=StudySpec.model_validate(study.spec),
                lines=lines, filters=filters, counts=trial_queries.count_trials(session, study_id),
                states=[state.value for state in TrialState],
                following=filters.beyond(lines[-1].place).query() if more else None,
            )  # fmt: skip

        return self._frame.read(request, answer)

    def trial(self, request: Request, study_id: str, key: str) -> Response:
        """One trial."""

        def answer(session: Session) -> Response:
            view = trial_view(session, study_id, key, LIGHT)
            return self._frame.html(request, "trial.html", here="home", view=view)

        return self._frame.read(request, answer)

    def figures(self, request: Request, study_id: str, key: str, theme: str = "light") -> Response:
        """The chart of one trial."""

        def answer(session: Session) -> Response:
            view = trial_view(session, study_id, key, THEMES.get(theme, LIGHT))
            return answers.figures(request, (view.chart,))

        return self._frame.read(request, answer)

    def table(self, request: Request, study_id: str, key: str) -> Response:
        """The training curve as CSV."""

        def answer(session: Session) -> Response:
            chart = trial_view(session, study_id, key, LIGHT).chart
            return answers.csv_table((chart,), chart.key, key[:12])

        return self._frame.read(request, answer)


def trial_view(session: Session, study_id: str, key: str, theme: Theme) -> TrialView:
    """Read one trial. Raises NotFoundError."""
    study, trial = studies.get(session, study_id), trial_pages.one(session, study_id, key)
    spec, row = StudySpec.model_validate(study.spec), trial.row
    result = TrialResult.model_validate(row.result) if row.result else None
    arm, size, octaves, seed = trial.place
    control = next(a for a in spec.arms if a.name == arm).parametrization is Parametrization.SP
    line = TrainingLine(
        arm=arm, size=size, lr_octaves=octaves, seed=seed, dashed=control, history=result.history if result else ()
    )
    given_up = trial.unavailable and result is None
    return TrialView(
        study=study, trial=trial, status=TrialState.FAILED if given_up else TrialState(row.status), result=result,
        chart=training_chart([line], theme, axis_name=spec.axis_name, by_rate=False),
        may_retry=given_up and may_change(), mlflow=mlflow_search(study.mlflow_url, key),
    )  # fmt: skip


def routes(frame: Frame) -> Iterable[Route]:
    """Everything below a study's trials."""
    pages = Trials(frame)
    return [
        ("/studies/{study_id}/trials", pages.list),
        ("/studies/{study_id}/trials/{key}", pages.trial),
        ("/studies/{study_id}/trials/{key}/figures.json", pages.figures),
        ("/studies/{study_id}/trials/{key}/figures/training.csv", pages.table),
    ]
