"""The report as Markdown: the answer, the verdict of each arm, transfer and regret, conditions."""

from mutransfer.result import Cost, StudyResult
from mutransfer.spec import StudySpec
from service.reports import numbers, words
from service.reports.cards import sentence
from service.reports.table import Column, Table
from service.reports.tables import transfer_table, verdict_table


def cost_words(cost: Cost) -> str:
    """What the study took, as one sentence."""
    said = (
        f"{cost.trials} trials ({cost.reused} reused), {numbers.count(cost.tokens)} tokens, "
        f"{numbers.duration(cost.device_seconds)} of device time"
    )
    if cost.direct_search_device_seconds is not None:
        said += f"; searching at the target itself takes {numbers.duration(cost.direct_search_device_seconds)}"
    return f"{said}."


def report_markdown(result: StudyResult, spec: StudySpec) -> str:
    """The whole report."""
    answer = words.answer(result)
    parts = [
        f"# {result.study.name}: {answer.headline}",
        answer.evidence,
        "## Verdict",
        verdict_table(result).markdown(),
        *(_reasons(result)),
        "## Transfer and regret",
        _table_or(transfer_table(result), "No target has been trained at its recorded learning rate yet."),
        "## Conditions",
        f"μP carries a learning rate over {result.axis}, not over what is listed here.",
        Table(
            caption="Conditions",
            columns=(Column(key="condition", label="Condition"), Column(key="value", label="Value")),
            rows=words.conditions(spec),
        ).markdown(),
        "## Cost",
        cost_words(result.cost),
        f"Study `{result.study.id}`, {result.study.state}. Learning rates are base rates in octaves (2ˣ), losses nats "
        "per token on one held-out set, intervals 95 %.",
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _table_or(table: Table, otherwise: str) -> str:
    return table.markdown() if table.rows else otherwise


def _reasons(result: StudyResult) -> list[str]:
    said = []
    for arm in result.arms:
        lines = [f"- {sentence(reason)}" for reason in arm.verdict.reasons]
        lines += [f"- To settle it: {sentence(advice)}" for advice in arm.verdict.advice]
        said.append("\n".join([f"**{arm.name}** {arm.verdict.outcome.value}:", "", *lines]))
    return said
