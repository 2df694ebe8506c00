"""A study's results as pandas frames, for notebooks: `Client(url).frames("st_01…").trials()`.

Columns carry their units: rates in octaves (log2 of the base learning rate) and as they are, losses in nats per token.
pandas comes with the extra `service`.
"""

from io import BytesIO
from typing import TYPE_CHECKING, Any

from mutransfer.base import Value
from mutransfer.result import Interval

if TYPE_CHECKING:
    import pandas as pd

    from service.client import Client


class Frames:
    """Each method asks the service anew, so that a study that runs is seen as far as it is."""

    def __init__(self, client: "Client", study_id: str) -> None:
        self._client = client
        self._study_id = study_id

    def trials(self) -> "pd.DataFrame":
        """One row a trial: arm, size, rate, seed, status, losses, cost."""
        return self._exported("trials")

    def fits(self) -> "pd.DataFrame":
        """One row a curve: optimum and loss with 95 % intervals, stability edge, the arm's verdict, regret."""
        return self._exported("fits")

    def points(self) -> "pd.DataFrame":
        """One row a learning rate of each curve: the mean loss over seeds, its standard error, how many diverged."""
        rows = [
            {"arm": arm.name, "width": curve.width, "depth": curve.depth, **point.model_dump()}
            for arm in self._client.curves(self._study_id).arms
            for curve in arm.curves
            for point in curve.points
        ]
        return _frame(rows, ("arm", "width", "depth", "lr_octaves", "loss_nats", "stderr", "seeds", "diverged"))

    def verdicts(self) -> "pd.DataFrame":
        """One row an arm: outcome, recorded rate, drift and slope with intervals, the reasons as one text."""
        rows = []
        for arm in self._client.verdict(self._study_id).arms:
            verdict = arm.verdict
            rows.append({
                "arm": arm.name, "optimizer": arm.optimizer, "parametrization": arm.parametrization.value,
                "outcome": verdict.outcome.value, "recorded_lr_octaves": verdict.recorded_lr_octaves,
                **_three("drift_octaves", verdict.total_drift_octaves),
                **_three("slope_octaves_per_doubling", verdict.slope_octaves_per_doubling),
                "wider_is_better": verdict.wider_is_better, "reasons": "; ".join(verdict.reasons),
            })  # fmt: skip
        return _frame(rows)

    def history(self, **chosen: Any) -> "pd.DataFrame":
        """Training curves: one row a logged step of every finished trial whose columns equal `chosen`.

        `history(arm="adamw-mup", width=64)`. Each trial is one request: choose.
        """
        trials = self.trials()
        for name, value in chosen.items():
            if name not in trials.columns:
                raise KeyError(f"trials have no column {name!r}: choose among {', '.join(trials.columns)}")
            trials = trials[trials[name] == value]
        rows = []
        for trial in trials.itertuples():
            result = self._client.trial(self._study_id, trial.key).result
            place = {"arm": trial.arm, "width": trial.width, "lr_octaves": trial.lr_octaves, "seed": trial.seed}
            rows += [{**place, **point.model_dump()} for point in result.history] if result is not None else []
        return _frame(rows, ("arm", "width", "lr_octaves", "seed", "step", "train_loss_nats"))

    def recipe(self, *, width: int, depth: int | None = None, arm: str | None = None) -> "pd.DataFrame":
        """What to set at a width, one row a parameter group."""
        found = self._client.recipe(self._study_id, width=width, depth=depth, arm=arm)
        return _frame([_plain(group) for group in found.groups])

    def _exported(self, data: str) -> "pd.DataFrame":
        import pandas as pd

        return pd.read_parquet(BytesIO(self._client.export(self._study_id, data, form="parquet")))


def _three(name: str, value: Interval | None) -> dict[str, float | None]:
    if value is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}


def _plain(value: Value) -> dict[str, Any]:
    return value.model_dump(mode="json")


def _frame(rows: list[dict[str, Any]], columns: tuple[str, ...] | None = None) -> "pd.DataFrame":
    """A frame with the given columns first; they are there even without a row."""
    import pandas as pd

    if not rows:
        return pd.DataFrame(columns=list(columns or ()))
    return pd.DataFrame(rows)
