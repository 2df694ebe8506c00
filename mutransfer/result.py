"""The result of a study, version 1: what `mutransfer run --json` prints and the verdict is read from.

Every quantity carries its unit in its name and its 95 % interval beside it; see docs/guide/result-format.md.
"""

from enum import StrEnum
from typing import Literal

from mutransfer.base import Value
from mutransfer.spec import Hyperparameter, Parametrization


class Interval(Value):
    """A value with its 95 % interval. A None bound is unbounded: the data do not limit it on that side."""

    value: float
    low: float | None
    high: float | None


class CurveStatus(StrEnum):
    """Whether a curve has an optimum."""

    BRACKETED = "bracketed"  # worse on both sides of the best: the minimum is fitted
    EDGE_LIMITED = "edge_limited"  # divergence cuts one side off: optimum = best point, no part in a slope
    UNBRACKETED = "unbracketed"  # the best lies at the limit of the search: no optimum
    INCOMPLETE = "incomplete"  # trials are still missing
    EMPTY = "empty"  # nothing has finished, or everything diverged


class CurveRole(StrEnum):
    """What a width serves for."""

    PROXY = "proxy"
    TARGET = "target"


class Point(Value):
    """All seeds at one learning rate: mean over the finite ones, seed offsets removed; None when all diverged."""

    lr_octaves: float
    loss_nats: float | None
    stderr: float | None
    seeds: int
    diverged: int


class Curve(Value):
    """Loss against learning rate of one arm at one value of the axis, and its fitted minimum."""

    width: int
    depth: int
    role: CurveRole
    status: CurveStatus
    optimum_octaves: Interval | None
    loss_nats: Interval | None
    points: tuple[Point, ...]
    fit_coefficients: tuple[float, ...] = ()  # polynomial in (lr_octaves - fit_center), lowest degree first
    fit_center_octaves: float | None = None
    fit_window_octaves: tuple[float, float] | None = None
    seed_stderr_nats: float | None = None  # pooled standard deviation between seeds, seed offsets removed
    seed_offset_nats: float | None = None  # standard deviation of the offsets that seeds share over the curve
    stability_edge_octaves: float | None = None  # largest rate at which no seed diverged


class Outcome(StrEnum):
    """The verdict's word."""

    TRANSFERS = "transfers"
    DRIFTS = "drifts"
    INCONCLUSIVE = "inconclusive"


class Regret(Value):
    """Loss at the recorded rate minus the best loss at one target, in nats per token."""

    width: int
    value: float | None
    low: float | None
    high: float | None


class Tolerances(Value):
    """The study's tolerances, repeated where they are used."""

    drift_octaves: float
    regret_nats: float


class Verdict(Value):
    """Does this arm's learning rate transfer? `reasons` are sentences, `advice` says how to settle it."""

    outcome: Outcome
    reasons: tuple[str, ...]
    advice: tuple[str, ...] = ()
    proxy: int
    target: int | None
    recorded_lr_octaves: float | None
    total_drift_octaves: Interval | None
    slope_octaves_per_doubling: Interval | None
    regret_nats: tuple[Regret, ...]
    wider_is_better: bool | None
    tolerances: Tolerances


class ArmResult(Value):
    """One arm: its curves, proxies first, and its verdict. `overrides` are its own hyperparameters, or tuned ones."""

    name: str
    optimizer: str
    parametrization: Parametrization
    overrides: dict[Hyperparameter, float] = {}
    curves: tuple[Curve, ...]
    verdict: Verdict


class Cost(Value):
    """What the study took; `direct_search_device_seconds` is what searching at the target itself cost or would cost."""

    device_seconds: float
    tokens: int
    trials: int
    reused: int
    direct_search_device_seconds: float | None = None


class StudyRef(Value):
    """Which study this is the result of."""

    id: str
    name: str
    state: str


class StudyResult(Value):
    """The whole document."""

    version: Literal[1] = 1
    study: StudyRef
    axis: Literal["width", "depth"] = "width"
    arms: tuple[ArmResult, ...]
    cost: Cost
