"""The compare page: any arms of any studies side by side. Its address carries everything: `?a=STUDY:arm&a=…&base=…`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlencode

from fastapi import Query, Request, Response
from sqlalchemy.orm import Session

from mutransfer.errors import NotFoundError
from mutransfer.facts import StudyFacts
from mutransfer.result import ArmResult, StudyResult
from mutransfer.spec import StudySpec
from service.dashboard import queries
from service.dashboard.answers import csv_table, figures, number
from service.dashboard.frame import Frame, Route
from service.dashboard.queries import Filters
from service.db import studies
from service.db.tables import StudyRow
from service.db.trial_results import at_rates
from service.reports import numbers, words
from service.reports.cards import ArmCard, arm_cards
from service.reports.chart import Chart
from service.reports.comparison import MOST_ARMS, Comparison, Contender, Run, best_rate, compare, evidence, headline
from service.reports.comparison_charts import comparison_charts
from service.reports.palette import LIGHT, THEMES, Theme
from service.studies.read import result_document

_Keys = Annotated[list[str] | None, Query(max_length=32)]
_Text = Annotated[str | None, Query(max_length=200)]
_Short = Annotated[str | None, Query(max_length=12)]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The query parameters: chosen arms as `STUDY:arm`, the baseline among them, a size, and the picker's search."""

    keys: tuple[str, ...]
    base: str | None
    size: int | None
    search: str

    def query(self, **changes: object) -> str:
        """The address's query with some of it changed."""
        whole = {"a": self.keys, "base": self.base, "size": self.size, "q": self.search or None} | changes
        given = {name: value for name, value in whole.items() if value not in (None, (), "")}
        return urlencode(given, doseq=True, safe=":")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One chosen arm: its card's facts, and the address without it."""

    contender: Contender
    card: ArmCard
    is_baseline: bool
    without: str
    as_baseline: str


@dataclass(frozen=True, kw_only=True)
class CompareView:
    """Everything that the template reads. `problems` are keys that name nothing."""

    asked: Asked
    comparison: Comparison | None
    choices: tuple[Choice, ...]
    charts: tuple[Chart, ...]
    headline: str
    evidence: str
    problems: tuple[str, ...]
    offers: tuple[tuple[StudyRow, tuple[str, ...]], ...]  # studies with the arms that are not chosen yet


def compare_view(session: Session, asked: Asked) -> CompareView:
    """Read all chosen arms in one snapshot."""
    contenders, problems = read_contenders(session, asked.keys)
    comparison = compare(contenders, baseline=asked.base, size=asked.size) if contenders else None
    return CompareView(
        asked=asked, comparison=comparison, choices=_choices(asked, comparison), problems=tuple(problems),
        charts=comparison_charts(comparison, LIGHT) if comparison else (),
        headline=headline(comparison) if comparison else "", evidence=evidence(comparison) if comparison else "",
        offers=_offers(session, asked),
    )  # fmt: skip


def _choices(asked: Asked, comparison: Comparison | None) -> tuple[Choice, ...]:
    if comparison is None:
        return ()
    return tuple(
        Choice(
            contender=contender, card=_card(contender), is_baseline=contender is comparison.baseline,
            without=asked.query(a=tuple(key for key in asked.keys if key != contender.key)),
            as_baseline=asked.query(base=contender.key),
        )
        for contender in comparison.contenders
    )  # fmt: skip


def _card(contender: Contender) -> ArmCard:
    """The arm's card as on its study's page, in the colour and under the name that it has here."""
    arm = contender.arm.model_copy(update={"name": contender.label})
    blanks = [arm.model_copy(update={"name": f"-{place}"}) for place in range(contender.index)]
    study = {"id": contender.study_id, "name": contender.study_name, "state": contender.state}
    cost = {"device_seconds": 0.0, "tokens": 0, "trials": 0, "reused": 0}
    document = {"study": study, "axis": contender.axis, "arms": (), "cost": cost}
    result = StudyResult.model_validate(document).model_copy(update={"arms": (*blanks, arm)})
    return arm_cards(result)[-1]


def _offers(session: Session, asked: Asked) -> tuple[tuple[StudyRow, tuple[str, ...]], ...]:
    lines, _ = queries.list_studies(session, Filters(search=asked.search))
    found = []
    for row in (line.row for line in lines):
        names = [arm["name"] for arm in row.spec["arms"]]
        found.append((row, tuple(name for name in names if f"{row.id}:{name}" not in asked.keys)))
    return tuple((row, names) for row, names in found if names)


def read_contenders(session: Session, keys: Sequence[str]) -> tuple[list[Contender], list[str]]:
    """The chosen arms, and a sentence for every key that names nothing."""
    found: list[tuple[str, StudyRow, StudyResult, ArmResult]] = []
    problems = []
    for key in dict.fromkeys(keys):
        study_id, _, name = key.partition(":")
        try:
            row, result = studies.get(session, study_id), result_document(session, study_id)
            arm = next((arm for arm in result.arms if arm.name == name), None)
            if arm is None:
                raise NotFoundError(f"study {row.name} has no arm {name!r}: it has {_names(result)}")
            found.append((key, row, result, arm))
        except NotFoundError as error:
            problems.append(str(error))
    if len(found) > MOST_ARMS:
        problems.append(f"{len(found)} arms are too many to tell apart: the first {MOST_ARMS} are shown.")
    labels = _unique([(arm.name, row.name, row.id) for _, row, _, arm in found])
    made = [
        _contender(session, index, key, row, arm, label)
        for index, ((key, row, _, arm), label) in enumerate(zip(found[:MOST_ARMS], labels, strict=False))
    ]
    return made, problems


def _names(result: StudyResult) -> str:
    return numbers.listed([arm.name for arm in result.arms])


def _unique(places: Sequence[tuple[str, str, str]]) -> list[str]:
    """The arm's name where that is unique, else with its study's name, else with the study's id as well."""
    forms = (
        [arm for arm, _, _ in places],
        [f"{arm} ({study})" for arm, study, _ in places],
        [f"{arm} ({study}, {key[-4:]})" for arm, study, key in places],
    )
    labels = forms[0]
    for longer in forms[1:]:
        twice = {label for label in labels if labels.count(label) > 1}
        labels = [long if label in twice else label for label, long in zip(labels, longer, strict=True)]
    return labels


def _contender(session: Session, index: int, key: str, row: StudyRow, arm: ArmResult, label: str) -> Contender:
    spec = StudySpec.model_validate(row.spec)
    rates = {words.size_of(curve, spec.axis_name): best_rate(curve) for curve in arm.curves}
    wanted = [(size, rate) for size, rate in rates.items() if rate is not None]
    runs = tuple(
        Run(size=found.axis_value, lr_octaves=found.lr_octaves, seed=found.seed, result=found.result)
        for found in at_rates(session, row.id, arm.name, wanted)
    )
    return Contender(
        index=index, key=key, label=label, study_id=row.id, study_name=row.name, state=row.state, spec=spec,
        facts=StudyFacts.model_validate(row.facts) if row.facts else None, arm=arm, runs=runs,
    )  # fmt: skip


class Compare:
    """The handlers."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def page(
        self, request: Request, a: _Keys = None, base: _Text = None, size: _Short = None, q: _Text = None
    ) -> Response:  # fmt: skip
        """The page, with a picker while nothing is chosen."""
        asked = Asked(keys=tuple(dict.fromkeys(a or ())), base=base, size=number(size), search=(q or "").strip())

        def answer(session: Session) -> Response:
            return self._frame.html(request, "compare.html", here="compare", view=compare_view(session, asked))

        return self._frame.read(request, answer)

    def figures(
        self, request: Request, a: _Keys = None, base: _Text = None, size: _Short = None, theme: str = "light"
    ) -> Response:  # fmt: skip
        """All charts in one theme."""
        colours = THEMES.get(theme, LIGHT)
        return self._frame.read(request, lambda session: figures(request, _charts(session, a, base, size, colours)))

    def table(
        self, request: Request, key: str, a: _Keys = None, base: _Text = None, size: _Short = None
    ) -> Response:  # fmt: skip
        """The table of one chart as CSV."""
        return self._frame.read(
            request, lambda session: csv_table(_charts(session, a, base, size, LIGHT), key, "mutransfer")
        )


def _charts(
    session: Session, keys: list[str] | None, base: str | None, size: str | None, theme: Theme
) -> tuple[Chart, ...]:  # fmt: skip
    contenders, problems = read_contenders(session, keys or ())
    if not contenders:
        raise NotFoundError("; ".join(problems) or "no arm is chosen: name some as ?a=STUDY:arm")
    return comparison_charts(compare(contenders, baseline=base, size=number(size)), theme)


def routes(frame: Frame) -> Iterable[Route]:
    """The page, its figures and their tables."""
    pages = Compare(frame)
    return [
        ("/compare", pages.page),
        ("/compare/figures.json", pages.figures),
        ("/compare/figures/{key}.csv", pages.table),
    ]
