"""What a night measured and how it compares with its baseline, as values (verdict.md, Nightly regression).

A *night* is one run of a schedule's study; its *baseline* an earlier run of the same study with the same fixed seeds. A
*figure* is one number that is compared. Octaves are log2 of the base learning rate, losses nats per token.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from mutransfer.audit import AuditResult
from mutransfer.base import Value
from mutransfer.result import Interval, StudyResult


class Sensitivity(Value):
    """When a change is flagged: it must be beyond chance, and as large as this.

    `false_alarms` is the share of unchanged nights that may have any flag at all, over all figures together.
    """

    optimum_octaves: Annotated[float, Field(ge=0.0, le=8.0)] = 0.1
    loss_nats: Annotated[float, Field(ge=0.0, le=10.0)] = 0.002
    throughput_share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    false_alarms: Annotated[float, Field(gt=0.0, le=0.05)] = 0.005


@dataclass(frozen=True, kw_only=True)
class NightTrial:
    """One finished or diverged trial of a night.

    `tokens_per_second` and `calibration_gflops` (the speed of a fixed matrix product in the same process at the same
    time) are None where they were not measured.
    """

    arm: str
    axis_value: int
    lr_octaves: float
    seed: int
    loss_nats: float | None
    tokens_per_second: float | None = None
    calibration_gflops: float | None = None
    device: str = ""

    @property
    def curve(self) -> tuple[str, int]:
        """Which curve it is a point of."""
        return self.arm, self.axis_value


@dataclass(frozen=True, kw_only=True)
class NightData:
    """Everything that one night measured. `audits`: of each μP arm by its name, where the study asks for audits."""

    result: StudyResult
    trials: tuple[NightTrial, ...]
    audits: Mapping[str, AuditResult] = field(default_factory=dict)


class FigureKind(StrEnum):
    """What is compared."""

    OPTIMUM = "optimum"  # octaves, of one curve
    LOSS = "loss"  # nats at the optimum, of one curve
    DRIFT = "drift"  # octaves from proxy to target, of one arm
    THROUGHPUT = "throughput"  # tokens per second over calibration, as a share of the baseline's, of one arm
    DIVERGED = "diverged"  # trials, of the study
    AUDIT = "audit"  # μP arms that fail the audit, of the study


UNITS = {
    FigureKind.OPTIMUM: "octaves",
    FigureKind.LOSS: "nats",
    FigureKind.DRIFT: "octaves",
    FigureKind.THROUGHPUT: "share",
    FigureKind.DIVERGED: "trials",
    FigureKind.AUDIT: "arms",
}


class Method(StrEnum):
    """How a change was tested."""

    NONE = "none"  # not compared: `reason` says why
    PAIRED = "paired"  # differences seed by seed at the same (or nearest) rates
    INTERVALS = "intervals"  # the two fits' own intervals: too few rates in common
    HISTORY = "history"  # against the scatter of unchanged nights
    COUNTS = "counts"  # trials or arms that changed sides


class Figure(Value):
    """One number of a night beside the baseline's.

    `night` and `baseline` carry their 95 % intervals; `change` is night minus baseline (a share for throughput) with
    its interval at the level of a flag, which is much wider than 95 %. `reason` is a sentence with numbers.
    """

    kind: FigureKind
    arm: str | None = None
    axis_value: int | None = None
    unit: str
    night: Interval | None
    baseline: Interval | None = None
    change: Interval | None = None
    tolerance: float | None = None
    method: Method
    flagged: bool = False
    reason: str = ""

    @property
    def key(self) -> str:
        """The figure's name in a trend: `optimum/adamw-mup/128`."""
        parts = (self.kind.value, self.arm, self.axis_value)
        return "/".join(str(part) for part in parts if part is not None)


def counted(value: int) -> Interval:
    """A number of trials or arms, which is known exactly."""
    return Interval(value=float(value), low=float(value), high=float(value))


class Judgement(Value):
    """A night judged, once. `flags` are the reasons of the flagged figures; a first night has no baseline and none."""

    version: Literal[1] = 1
    baseline_study: str | None
    sensitivity: Sensitivity
    figures: tuple[Figure, ...]

    @property
    def flagged(self) -> bool:
        """Whether anything is flagged."""
        return any(figure.flagged for figure in self.figures)

    @property
    def flags(self) -> tuple[str, ...]:
        """Why, a sentence a flagged figure."""
        return tuple(figure.reason for figure in self.figures if figure.flagged)
