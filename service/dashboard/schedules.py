"""The pages of schedules: all of them with how their nights went, and one with its trends, flags and baseline."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Query, Request, Response
from sqlalchemy.orm import Session

from mutransfer.nights import Judgement
from mutransfer.spec import StudySpec
from service.dashboard.answers import csv_table, figures, number
from service.dashboard.frame import MAX_TEXT, Frame, Route
from service.dashboard.submit import START, as_text, text_of
from service.db import nights, schedules, studies
from service.db.base import MOST_BIG_INTEGER
from service.db.states_schedules import BaselinePolicy, Concurrency, NightState
from service.db.tables_schedules import NightRow, ScheduleRow
from service.reports.chart import Chart
from service.reports.palette import LIGHT, THEMES, Theme
from service.reports.trend_charts import trend_charts
from service.schedules.slots import local_time
from service.schedules.stored import stored_template
from service.schedules.trend import trend

_Text = Annotated[str | None, Query(max_length=MAX_TEXT)]
_Short = Annotated[str | None, Query(max_length=20)]
MOST = 100  # schedules in the list
SHOWN = 30  # nights in a history
TREND = 90  # nights in a chart
RECENT = 14  # nights in a row of dots

#: What each policy means, as the form says it.
CONCURRENCIES = {
    Concurrency.SKIP: "skip the new one", Concurrency.QUEUE: "queue it", Concurrency.REPLACE: "replace the old one",
}  # fmt: skip
POLICIES = {
    BaselinePolicy.FIRST: "the first completed night", BaselinePolicy.PROMOTE: "promoted after clean nights",
    BaselinePolicy.PINNED: "pinned by hand only",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class NightLine:
    """One night in words: `word` is its state or its finding, for shape and colour."""

    row: NightRow
    local: str
    word: str
    flags: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ScheduleLine:
    """One schedule in the list, with its last nights, the oldest first."""

    row: ScheduleRow
    recent: tuple[NightLine, ...]


@dataclass(frozen=True, kw_only=True)
class ScheduleView:
    """Everything that the page of one schedule reads."""

    row: ScheduleRow
    spec: StudySpec | None
    refused: str  # why there is none
    policy: str
    concurrency: str
    nights: tuple[NightLine, ...]
    older: int | None  # id to go on from
    chosen: NightLine | None
    judgement: Judgement | None
    charts: tuple[Chart, ...]
    headline: str
    version: str  # changes with every judged night, and so may the charts
    pinnable: tuple[tuple[str, str], ...]  # (study, what it is called)


def night_line(row: NightRow, time_zone: str, judgement: Judgement | None = None) -> NightLine:
    """One night; its flags where its judgement is at hand."""
    word = row.state
    if row.state == NightState.JUDGED:
        word = "flagged" if row.flagged else "clean"
    flags = () if judgement is None else judgement.flags
    return NightLine(row=row, local=local_time(row.fire_at, time_zone)[:16], word=word, flags=flags)


def schedule_lines(session: Session) -> tuple[ScheduleLine, ...]:
    """The newest schedules."""
    lines = []
    for row in schedules.page(session, project=None, before=None, limit=MOST):
        recent = nights.page(session, row.id, before=None, limit=RECENT)
        lines.append(ScheduleLine(row=row, recent=tuple(night_line(n, row.time_zone) for n in reversed(recent))))
    return tuple(lines)


def schedule_view(session: Session, which: str, *, night: int | None, before: int | None) -> ScheduleView:
    """One schedule. Raises NotFoundError."""
    row = schedules.get(session, which)
    found = nights.page(session, row.id, before=before, limit=SHOWN + 1)
    lines = tuple(night_line(one, row.time_zone) for one in found[:SHOWN])
    judged = nights.judged(session, row.id, limit=TREND)
    chosen = _chosen(session, row, night, judged)
    judgement = Judgement.model_validate(chosen.judgement) if chosen is not None and chosen.judgement else None
    line = None if chosen is None else night_line(chosen, row.time_zone, judgement)
    spec, refused = stored_template(row.spec)
    return ScheduleView(
        row=row, spec=spec, refused=refused, policy=POLICIES[BaselinePolicy(row.baseline_policy)],
        concurrency=CONCURRENCIES[Concurrency(row.concurrency)], nights=lines,
        older=lines[-1].row.id if len(found) > SHOWN else None, chosen=line, judgement=judgement,
        charts=_charts(row, judged, LIGHT), headline=_headline(line),
        version=str(judged[0].id) if judged else "none",
        pinnable=tuple((n.study_id, local_time(n.fire_at, row.time_zone)[:16]) for n in judged if n.study_id),
    )  # fmt: skip


def _chosen(session: Session, row: ScheduleRow, night: int | None, judged: Sequence[NightRow]) -> NightRow | None:
    if night is not None:
        return nights.get(session, row.id, night)
    return judged[0] if judged else None


def _headline(line: NightLine | None) -> str:
    if line is None:
        return "No night has been judged yet"
    if line.word == "flagged":
        what = "One figure differs" if len(line.flags) == 1 else f"{len(line.flags)} figures differ"
        return f"{what} from the baseline"
    if line.word == "clean":
        return (
            "No change from the baseline" if line.row.baseline_study_id else "The first night: nothing to compare with"
        )
    return f"The night is {line.word}"


def _charts(row: ScheduleRow, judged: Sequence[NightRow], theme: Theme) -> tuple[Chart, ...]:
    return trend_charts(trend(row, list(reversed(judged))), theme)


class Schedules:
    """The handlers."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def all(self, request: Request, study: _Text = None) -> Response:
        """Every schedule, and the form for a new one; `study` is where its template starts."""

        def answer(session: Session) -> Response:
            source = studies.get(session, study) if study else None
            text = as_text(START) if source is None else text_of(StudySpec.model_validate(source.spec))
            return self._frame.html(
                request, "schedules.html", here="schedules", lines=schedule_lines(session), draft=text, source=source,
                concurrencies=CONCURRENCIES, policies=POLICIES,
            )  # fmt: skip

        return self._frame.read(request, answer)

    def one(self, request: Request, schedule: str, night: _Short = None, before: _Short = None) -> Response:
        """One schedule."""

        def answer(session: Session) -> Response:
            view = schedule_view(
                session, schedule, night=number(night, most=MOST_BIG_INTEGER),
                before=number(before, most=MOST_BIG_INTEGER),
            )  # fmt: skip
            return self._frame.html(request, "schedule.html", here="schedules", view=view)

        return self._frame.read(request, answer)

    def figures(self, request: Request, schedule: str, theme: str = "light") -> Response:
        """Its trend charts in one theme."""
        colours = THEMES.get(theme, LIGHT)
        return self._frame.read(request, lambda session: figures(request, _trend(session, schedule, colours)))

    def table(self, request: Request, schedule: str, key: str) -> Response:
        """The table of one chart as CSV."""
        return self._frame.read(request, lambda session: csv_table(_trend(session, schedule, LIGHT), key, "nights"))


def _trend(session: Session, which: str, theme: Theme) -> tuple[Chart, ...]:
    row = schedules.get(session, which)
    return _charts(row, nights.judged(session, row.id, limit=TREND), theme)


def routes(frame: Frame) -> Iterable[Route]:
    """All schedules, one, its figures and their tables."""
    pages = Schedules(frame)
    return [
        ("/schedules", pages.all),
        ("/schedules/{schedule}", pages.one),
        ("/schedules/{schedule}/figures.json", pages.figures),
        ("/schedules/{schedule}/figures/{key}.csv", pages.table),
    ]
