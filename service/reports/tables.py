"""The tables of a study: the verdict of each arm, and transfer with regret at each target."""

from mutransfer.result import ArmResult, Interval, Regret, StudyResult
from service.reports import numbers, words
from service.reports.table import Cell, Column, Table


def verdict_table(result: StudyResult) -> Table:
    """One row an arm."""
    columns = (
        Column(key="arm", label="Arm"),
        Column(key="verdict", label="Verdict"),
        Column(key="recorded_lr_octaves", label="Recorded LR", show=numbers.rate),
        Column(key="drift_octaves", label="Drift (octaves)", show=str),
        Column(key="regret_nats", label="Regret ≤ (nats)", show=lambda value: numbers.loss(max(value, 0.0), 4)),
        Column(key="slope_octaves_per_doubling", label="Slope (octaves a doubling)", show=str),
        Column(key="wider_is_better", label="Wider is better"),
    )
    return Table(caption="Verdict of each arm", columns=columns, rows=tuple(_verdict_row(arm) for arm in result.arms))


def _verdict_row(arm: ArmResult) -> tuple[Cell, ...]:
    verdict = arm.verdict
    better = {True: "yes", False: "no", None: None}[verdict.wider_is_better]
    return (
        arm.name, verdict.outcome.value, verdict.recorded_lr_octaves, _text(verdict.total_drift_octaves),
        words.worst_regret(arm), _text(verdict.slope_octaves_per_doubling), better,
    )  # fmt: skip


def _text(value: Interval | None) -> str | None:
    return None if value is None else numbers.interval(value)


def transfer_table(result: StudyResult) -> Table:
    """One row a target of each arm with a recorded rate: the target's own optimum, its distance, the regret."""
    columns = (
        Column(key="arm", label="Arm"),
        Column(key=result.axis, label=result.axis.capitalize(), show=numbers.count),
        Column(key="recorded_lr_octaves", label="Recorded LR", show=numbers.power_of_two),
        Column(key="optimum_octaves", label="Own optimum", show=str),
        Column(key="distance_octaves", label="Distance (octaves)", show=numbers.signed),
        Column(key="regret_nats", label="Regret (nats)", show=str),
        Column(key="loss_nats", label="Best loss (nats)", show=numbers.loss),
    )
    rows = tuple(
        _transfer_row(arm, regret, result.axis)
        for arm in result.arms
        if arm.verdict.recorded_lr_octaves is not None
        for regret in arm.verdict.regret_nats
    )
    return Table(caption="Transfer and regret at each target", columns=columns, rows=rows)


def _transfer_row(arm: ArmResult, regret: Regret, axis_name: str) -> tuple[Cell, ...]:
    curve = words.curve_at(arm, regret.width, axis_name)
    best = curve.optimum_octaves if curve is not None else None
    loss = curve.loss_nats if curve is not None else None
    recorded = arm.verdict.recorded_lr_octaves
    distance = best.value - recorded if best is not None and recorded is not None else None
    return (
        arm.name, regret.width, recorded, None if best is None else numbers.rate_interval(best), distance,
        _regret_text(regret), loss.value if loss is not None else None,
    )  # fmt: skip


def _regret_text(regret: Regret) -> str | None:
    if regret.value is None:
        return None
    whole = Interval(value=regret.value, low=regret.low, high=regret.high)
    return numbers.interval(whole, sign=False, digits=4)
