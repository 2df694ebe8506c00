"""Trials and fits of a study as tables of plain columns, for programs: CSV for any, parquet with types."""

from collections.abc import Iterable
from enum import StrEnum
from io import BytesIO

from mutransfer.result import ArmResult, Curve, Interval, StudyResult
from mutransfer.spec import StudySpec
from service.db.states import TrialState
from service.db.trial_pages import StudyTrial
from service.reports.table import Cell, Column, Table

#: Columns that hold whole numbers, however few rows say so: the type of a parquet column must not depend on the data.
_WHOLE = frozenset({"width", "depth", "seed", "steps", "attempts", "points"})
_FLAGS = frozenset({"reused"})
_TEXTS = frozenset({
    "study", "study_id", "arm", "optimizer", "parametrization", "phases", "status", "key", "role", "verdict",
})  # fmt: skip

TRIAL_COLUMNS = (
    "study", "study_id", "arm", "optimizer", "parametrization", "width", "depth", "lr_octaves", "lr", "seed",
    "phases", "status", "loss_nats", "train_loss_nats", "steps", "attempts", "reused", "device_seconds", "key",
)  # fmt: skip
FIT_COLUMNS = (
    "study", "study_id", "arm", "optimizer", "parametrization", "width", "depth", "role", "status",
    "optimum_octaves", "optimum_octaves_low", "optimum_octaves_high", "optimum_lr",
    "loss_nats", "loss_nats_low", "loss_nats_high", "stability_edge_octaves", "seed_stderr_nats", "points",
    "verdict", "recorded_lr_octaves", "regret_nats", "regret_nats_low", "regret_nats_high",
)  # fmt: skip


class DataForm(StrEnum):
    """How a table is written."""

    CSV = "csv"
    PARQUET = "parquet"


DATA_FORMS = {DataForm.CSV: "text/csv", DataForm.PARQUET: "application/vnd.apache.parquet"}


def _columns(names: Iterable[str]) -> tuple[Column, ...]:
    return tuple(Column(key=name, label=name) for name in names)


def trials_table(study_id: str, spec: StudySpec, trials: Iterable[StudyTrial]) -> Table:
    """One row a trial of the study, by arm, size, learning rate and seed."""
    arms = {arm.name: arm for arm in spec.arms}
    rows = []
    for trial in trials:
        name, size, octaves, seed = trial.place
        width, depth = spec.size_at(size)
        row, arm = trial.row, arms[name]
        status = TrialState(row.status)
        given_up = trial.unavailable and not status.has_result
        rows.append((
            spec.name, study_id, name, str(arm.optimizer), arm.parametrization.value, width, depth, octaves,
            2.0**octaves, seed, "+".join(trial.phases), (TrialState.FAILED if given_up else status).value,
            row.loss_nats, row.train_loss_nats, row.steps, row.attempts, trial.reused, row.device_seconds, row.key,
        ))  # fmt: skip
    return Table(caption=f"Trials of {spec.name}", columns=_columns(TRIAL_COLUMNS), rows=tuple(rows))


def fits_table(result: StudyResult) -> Table:
    """One row a curve: its optimum and loss with intervals, and what the verdict says of the arm there."""
    rows = tuple(_fit(result, arm, curve) for arm in result.arms for curve in arm.curves)
    return Table(caption=f"Fits of {result.study.name}", columns=_columns(FIT_COLUMNS), rows=rows)


def _fit(result: StudyResult, arm: ArmResult, curve: Curve) -> tuple[Cell, ...]:
    best = curve.optimum_octaves
    size = curve.width if result.axis == "width" else curve.depth
    regret = next((r for r in arm.verdict.regret_nats if r.width == size), None)
    return (
        result.study.name, result.study.id, arm.name, arm.optimizer, arm.parametrization.value, curve.width,
        curve.depth, curve.role.value, curve.status.value, *_three(best), None if best is None else 2.0**best.value,
        *_three(curve.loss_nats), curve.stability_edge_octaves, curve.seed_stderr_nats, len(curve.points),
        arm.verdict.outcome.value, arm.verdict.recorded_lr_octaves,
        *((None, None, None) if regret is None else (regret.value, regret.low, regret.high)),
    )  # fmt: skip


def _three(value: Interval | None) -> tuple[float | None, float | None, float | None]:
    return (None, None, None) if value is None else (value.value, value.low, value.high)


def written(table: Table, form: DataForm) -> bytes:
    """The table as a file."""
    return table.csv().encode() if form is DataForm.CSV else parquet(table)


def parquet(table: Table) -> bytes:
    """The table as parquet. Types follow the column's name, so that files of several studies can be read as one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [column.key for column in table.columns]
    fields = [pa.field(name, _type(name)) for name in names]
    columns = list(zip(*table.rows, strict=True)) or [()] * len(names)
    arrays = [pa.array(values, type=field.type) for values, field in zip(columns, fields, strict=True)]
    buffer = BytesIO()
    pq.write_table(pa.table(arrays, schema=pa.schema(fields)), buffer, compression="zstd")
    return buffer.getvalue()


def _type(name: str) -> object:
    import pyarrow as pa

    if name in _TEXTS:
        return pa.string()
    if name in _FLAGS:
        return pa.bool_()
    return pa.int64() if name in _WHOLE else pa.float64()
