"""What the command line prints, as Rich tables and plain lines. Numbers are worded by service.reports."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from mutransfer.result import ArmResult, Outcome, StudyResult
from service.reports import numbers, words

if TYPE_CHECKING:
    from mutransfer.plan import PlanEstimate
    from mutransfer.recipe import Recipe
    from mutransfer.reuse import Reuse

OUTCOME_STYLES = {Outcome.TRANSFERS: "bold green", Outcome.DRIFTS: "bold red", Outcome.INCONCLUSIVE: "bold yellow"}
PLAIN_WIDTH = 160  # columns where the output is no terminal


def console(*, stderr: bool = False) -> Console:
    """A console; piped output is not folded at 80 columns."""
    made = Console(stderr=stderr, highlight=False)
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, width=PLAIN_WIDTH)


def verdict_table(result: StudyResult) -> Table:
    """One row an arm: the verdict and the numbers that it rests on."""
    table = Table(title=f"{result.study.name} · {result.study.id} · {result.study.state}", title_justify="left")
    labels = (
        "Arm",
        "Verdict",
        "Recorded LR",
        "Optimum at proxy",
        "Optimum at target",
        "Drift (octaves)",
        "Regret ≤ (nats)",
    )
    for label in labels:
        table.add_column(label, justify="left" if label in ("Arm", "Verdict") else "right", overflow="fold")
    for arm in result.arms:
        table.add_row(*_verdict_cells(arm, result.axis))
    return table


def _verdict_cells(arm: ArmResult, axis: str) -> Iterable[str]:
    verdict = arm.verdict
    style = OUTCOME_STYLES[verdict.outcome]
    worst = words.worst_regret(arm)
    yield arm.name
    yield f"[{style}]{verdict.outcome.value}[/]"
    yield numbers.rate(verdict.recorded_lr_octaves)
    yield _optimum(arm, verdict.proxy, axis)
    yield _optimum(arm, verdict.target, axis)
    yield numbers.interval(verdict.total_drift_octaves)
    yield numbers.loss(None if worst is None else max(worst, 0.0), 4)


def _optimum(arm: ArmResult, size: int | None, axis: str) -> str:
    curve = words.curve_at(arm, size, axis)
    return numbers.rate_interval(curve.optimum_octaves if curve is not None else None)


def print_verdict(result: StudyResult, out: Console) -> None:
    """The table, then each arm's reasons and advice."""
    out.print(verdict_table(result))
    for arm in result.arms:
        for reason in arm.verdict.reasons:
            out.print(f"{arm.name}: {reason}", markup=False)
        for advice in arm.verdict.advice:
            out.print(f"{arm.name}: to settle it, {advice}", markup=False)
    cost = result.cost
    reused = f" ({numbers.count(cost.reused)} reused)" if cost.reused else ""
    out.print(
        f"{numbers.count(cost.trials)} trials{reused}, {numbers.count(cost.tokens)} tokens,"
        f" {numbers.duration(cost.device_seconds)} of device time",
        markup=False,
    )


def simple_table(labels: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> Table:
    """A table of text; columns named in `right` are aligned right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for label in labels:
        table.add_column(label, justify="right" if label in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def plan_table(plan: "PlanEstimate", axis: str) -> Table:
    """One row a curve (all arms alike), then the totals."""
    labels = ("Phase", axis.capitalize(), "Arms", "Trials", "At most", "Steps", "Parameters", "Tokens", "Time")
    rows = [
        (
            c.phase, str(c.axis_value), str(c.arms), numbers.count(c.arms * c.trials_expected),
            numbers.count(c.arms * c.trials_max), numbers.count(c.steps), numbers.count(c.parameters),
            numbers.count(c.arms * c.trials_expected * c.tokens_per_trial),
            numbers.duration(c.arms * c.trials_expected * c.seconds_per_trial),
        )
        for c in plan.curves
    ]  # fmt: skip
    total = (
        "total", "", "", numbers.count(plan.trials_expected), numbers.count(plan.trials_max), "", "",
        numbers.count(plan.tokens_expected), numbers.duration(plan.device_seconds_expected),
    )  # fmt: skip
    audit = ("audit, before them", *[""] * 7, numbers.duration(plan.audit_seconds))
    return simple_table(labels, [*rows, total, *([audit] if plan.audit_seconds else [])], right=labels[1:])


def reuse_line(reuse: "Reuse") -> str:
    """`31 of 84 trials already known, which saves 4 min of device time (data and code as of st_…)`."""
    if reuse.basis is None:
        return f"0 of {reuse.trials_total} trials already known: {reuse.note}"
    line = f"{reuse.trials_known} of {reuse.trials_total} trials already known"
    saved = f", which saves {numbers.duration(reuse.device_seconds_saved)} of device time" if reuse.trials_known else ""
    return f"{line}{saved} (data and code as of {reuse.basis})"


def recipe_table(recipe: "Recipe") -> Table:
    """One row a parameter group."""
    labels = (
        "Role", "Shape", "Algorithm", "Base LR", "× LR", "LR", "ε", "Weight decay", "Clip weight", "Init std",
        "Forward ×", "Parameters",
    )  # fmt: skip
    rows = [
        (
            g.role, "×".join(str(d) for d in g.shape), str(g.algorithm), f"{g.base_lr:.6g}", f"{g.lr_multiplier:.6g}",
            f"{g.lr:.6g}", f"{g.eps:.3g}", f"{g.weight_decay:.4g}", f"{g.clip_weight:.4g}", f"{g.init_std:.6g}",
            f"{g.forward_multiplier:.6g}", _few(g.names),
        )
        for g in recipe.groups
    ]  # fmt: skip
    return simple_table(labels, rows, right=labels[3:11])


def _few(names: Sequence[str], most: int = 2) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def verify_table(ours: StudyResult, theirs: StudyResult) -> Table:
    """One row an arm: what the service says, and what MLflow's runs give."""
    found = {arm.name: arm for arm in theirs.arms}
    rows = [(arm.name, *_said(arm), *_said(found.get(arm.name))) for arm in ours.arms]
    labels = ("Arm", "Service", "Drift", "Recorded LR", "MLflow", "Drift ", "Recorded LR ")
    return simple_table(labels, rows)


def _said(arm: ArmResult | None) -> tuple[str, str, str]:
    if arm is None:
        return "missing", numbers.MISSING, numbers.MISSING
    verdict = arm.verdict
    return (
        verdict.outcome.value, numbers.interval(verdict.total_drift_octaves), numbers.rate(verdict.recorded_lr_octaves)
    )  # fmt: skip
