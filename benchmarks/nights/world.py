"""A study whose truth is known, run night after night: the search asks, a curve answers, the fit and the judge judge.

Every trial has a loss that its seed fixes, and to which each night adds what two runs of one trial differ by. Its speed
is the machine's of that night, the trial's own and chance, over a calibration that shares the machine's part.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from math import log2

import numpy as np

from benchmarks.coverage import SHAPES
from mutransfer.nights import NightData, NightTrial
from mutransfer.plan import TrialRequest
from mutransfer.spec import StudySpec
from tests.audit_builders import audit_of
from tests.studies import SyntheticStudy, three_arm_study

ARMS = ("adamw-mup", "muon-mup")
OPTIMA = {"adamw-mup": -5.0, "muon-mup": -4.0}
FLOORS = {"adamw-mup": 2.3, "muon-mup": 2.25}
TOKENS_PER_SECOND = 60_000.0
GFLOPS = 40.0
SEED_OFFSET_SD = 0.02  # what a seed adds to every rate, in nats
SEED_SD = 0.004  # what a seed adds to one rate, in nats
EDGE_OCTAVES = 2.3  # above the optimum, where runs begin to diverge
EDGE_NIGHT_SD = 0.03  # by how much that border moves from run to run
TRIAL_SPEED_SD = 0.05  # of a trial's speed, as a share
NIGHT_SPEED_SD = 0.015  # of what the calibration does not catch in a night
STRAGGLERS = 0.02  # share of trials that something else slowed down to a half


@dataclass(frozen=True, kw_only=True)
class Truth:
    """One schedule: its curves' shape, and how much two runs of one trial differ (nats)."""

    shape: str
    rerun_sd: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What has been broken. All by arm: octaves that every optimum moves, octaves a doubling, slowdown as a share."""

    shift: Mapping[str, float] = field(default_factory=dict)
    slope: Mapping[str, float] = field(default_factory=dict)
    slowdown: float = 0.0
    failed_audits: tuple[str, ...] = ()


NOTHING = Fault()
SOUND, BROKEN = (audit_of({"blocks.0.mlp.up.weight": power}) for power in (0.0, 1.0))


def study_spec() -> StudySpec:
    """Two μP arms over widths 16 to 128, two seeds: what examples/nightly.yaml asks, answered by a formula."""
    arms = [{"optimizer": name.removesuffix("-mup"), "parametrization": "mup"} for name in ARMS]
    return three_arm_study(arms=arms, search={"seeds": {"min": 2, "max": 2}})


class World:
    """The nights of one schedule. Equal seeds give equal nights."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        self._spec = study_spec()
        self._offsets = np.random.default_rng([truth.seed, 1]).normal(0.0, SEED_OFFSET_SD, 8)
        self._numbers = count()

    def night(self, fault: Fault = NOTHING) -> NightData:
        """Run a night."""
        number = next(self._numbers)
        rng = np.random.default_rng([self._truth.seed, 2, number])
        study = SyntheticStudy(self._spec, lambda request: self._loss(request, fault, rng))
        result = study.run()
        audits = {arm: BROKEN if arm in fault.failed_audits else SOUND for arm in ARMS}
        return NightData(result=result, trials=tuple(self._trials(study, fault, rng)), audits=audits)

    def _loss(self, request: TrialRequest, fault: Fault, rng: np.random.Generator) -> float | None:
        doublings = log2(request.axis_value / 16)
        moved = fault.shift.get(request.arm, 0.0) + fault.slope.get(request.arm, 0.0) * doublings
        d = request.lr_octaves - OPTIMA[request.arm] - moved
        again, border = rng.normal(0.0, self._truth.rerun_sd), rng.normal(0.0, EDGE_NIGHT_SD)
        if d > EDGE_OCTAVES + self._own(request, 3) * 0.2 + border:
            return None
        floor = FLOORS[request.arm] - 0.05 * doublings
        fixed = float(self._offsets[request.seed]) + SEED_SD * self._own(request, 4)
        return floor + SHAPES[self._truth.shape](d) + fixed + float(again)

    def _own(self, request: TrialRequest, what: int) -> float:
        """A standard normal number that belongs to one trial, the same every night."""
        rate = round((request.lr_octaves + 32.0) * 1e4)
        key = [self._truth.seed, what, *request.arm.encode(), request.axis_value, rate, request.seed]
        return float(np.random.default_rng(key).standard_normal())

    def _trials(self, study: SyntheticStudy, fault: Fault, rng: np.random.Generator) -> Iterator[NightTrial]:
        machine, unseen = float(rng.uniform(0.6, 1.4)), float(rng.normal(0.0, NIGHT_SPEED_SD))
        for (arm, width), observations in study.observations.items():
            for seen in observations:
                chance = float(rng.normal(0.0, TRIAL_SPEED_SD)) + unseen
                half = 0.5 if rng.uniform() < STRAGGLERS else 1.0
                speed = TOKENS_PER_SECOND * 16.0 / width * machine * half * float(np.exp(chance))
                yield NightTrial(
                    arm=arm, axis_value=width, lr_octaves=seen.lr_octaves, seed=seen.seed, loss_nats=seen.loss_nats,
                    tokens_per_second=speed * (1.0 - fault.slowdown), calibration_gflops=GFLOPS * machine, device="cpu",
                )  # fmt: skip
