"""The report as PDF: the answer, verdicts, charts, tables, conditions. Drawn here, without a browser."""

from mutransfer.result import StudyResult
from mutransfer.spec import StudySpec
from service.reports import words
from service.reports.cards import sentence
from service.reports.figures import charts
from service.reports.markdown import cost_words
from service.reports.palette import LIGHT
from service.reports.paper import Paper, settings
from service.reports.table import Column, Table
from service.reports.tables import transfer_table, verdict_table


def report_pdf(result: StudyResult, spec: StudySpec) -> bytes:
    """The whole report. The same result gives the same bytes."""
    with settings():
        paper = Paper(f"{result.study.name} · {result.study.id}")
        _answer(paper, result)
        for chart in charts(result, spec):
            paper.chart(chart)
        _tables(paper, result, spec)
        return paper.pdf()


def _answer(paper: Paper, result: StudyResult) -> None:
    answer = words.answer(result)
    paper.text(result.study.name, size=13, colour=LIGHT.muted)
    paper.text(answer.headline, size=24, bold=True)
    paper.text(answer.evidence, size=13)
    paper.heading("Verdict")
    paper.table(verdict_table(result))
    for arm in result.arms:
        paper.text(f"{arm.name}: {arm.verdict.outcome.value}", bold=True)
        for reason in arm.verdict.reasons:
            paper.text(sentence(reason), indent=12)
        for advice in arm.verdict.advice:
            paper.text(f"To settle it: {sentence(advice)}", indent=12, colour=LIGHT.muted)


def _tables(paper: Paper, result: StudyResult, spec: StudySpec) -> None:
    transfer = transfer_table(result)
    if transfer.rows:
        paper.heading("Transfer and regret at each target")
        paper.table(transfer)
    paper.heading("Conditions")
    paper.text(f"μP carries a learning rate over {result.axis}, not over what is listed here.", colour=LIGHT.muted)
    columns = (Column(key="condition", label="Condition"), Column(key="value", label="Value"))
    paper.table(Table(caption="Conditions", columns=columns, rows=words.conditions(spec)))
    paper.heading("Cost")
    paper.text(cost_words(result.cost))
    paper.text(
        f"Study {result.study.id}, {result.study.state}. Learning rates are base rates in octaves (2ˣ), losses nats "
        "per token on one held-out set, intervals 95 %.",
        colour=LIGHT.muted, size=11,
    )  # fmt: skip
