"""Whole studies on synthetic losses: the plan asks, a formula answers, the judge judges. No training."""

from collections.abc import Callable
from typing import Any

import numpy as np

from mutransfer.judge import CurveData, curve_of, judge_study, recorded_lr
from mutransfer.plan import CurveKey, Phase, Progress, TrialRequest, requests
from mutransfer.result import Cost, StudyRef, StudyResult
from mutransfer.spec import StudySpec
from mutransfer.trial import Observation
from tests.trials import small_study

#: Loss in nats of one trial, None where it diverges.
Answer = Callable[[TrialRequest], float | None]

THREE_ARMS: list[dict[str, Any]] = [
    {"optimizer": "adamw", "parametrization": "sp"},
    {"optimizer": "adamw", "parametrization": "mup"},
    {"optimizer": "muon", "parametrization": "mup"},
]
WIDTHS = {"base": 16, "proxy": [16, 32], "targets": [64, 128]}


def three_arm_study(**changes: Any) -> StudySpec:
    """AdamW under SP and μP, Muon under μP, over widths 16 to 128."""
    return small_study(**{"arms": THREE_ARMS, "widths": WIDTHS, **changes})


def drifting_sp(*, sd: float = 0.003, seed: int = 0) -> Answer:
    """SP's optimum falls an octave a doubling, μP's stay at -5 and -4; wider is better; seeds share offsets."""
    rng = np.random.default_rng(seed)
    offsets = rng.normal(0, 0.02, 16)

    def answer(request: TrialRequest) -> float | None:
        doublings = float(np.log2(request.axis_value / 16))
        optimum = {"adamw-sp": -5.0 - doublings, "adamw-mup": -5.0, "muon-mup": -4.0}[request.arm]
        d = request.lr_octaves - optimum
        # Noise of its own for each trial, whatever the order in which they run.
        key = [seed, *request.arm.encode(), request.axis_value, int(request.lr_octaves * 1e4) % 2**31, request.seed]
        noise = float(np.random.default_rng(key).normal(0, sd))
        floor = {"adamw-sp": 2.3, "adamw-mup": 2.3, "muon-mup": 2.25}[request.arm] - 0.05 * doublings
        return None if d > 2.6 else floor + 0.06 * d * d + float(offsets[request.seed]) + noise

    return answer


class SyntheticStudy:
    """A study in progress: what has run, what was recorded, and the result so far."""

    def __init__(self, spec: StudySpec, answer: Answer) -> None:
        self.spec, self.answer = spec, answer
        self.observations: dict[CurveKey, list[Observation]] = {}
        self.recorded: dict[str, float | None] = {}
        self.asked: list[TrialRequest] = []

    def progress(self) -> Progress:
        """Everything finished, nothing pending."""
        return Progress(observations=self.observations, recorded=self.recorded)

    def run_phase(self, phase: Phase) -> None:
        """Run one phase to its end, and record the rates after the search."""
        while new := requests(self.spec, phase, self.progress()):
            for request in new:
                self.asked.append(request)
                row = Observation(lr_octaves=request.lr_octaves, seed=request.seed, loss_nats=self.answer(request))
                self.observations.setdefault((request.arm, request.axis_value), []).append(row)
        if phase is Phase.SEARCH:
            self._record()

    def run(self) -> StudyResult:
        """All phases, and the result."""
        for phase in Phase:
            self.run_phase(phase)
        return self.result(state="completed")

    def _record(self) -> None:
        proxy = self.spec.axis.proxy[-1]
        for arm in self.spec.arms:
            self.recorded[arm.name] = recorded_lr(curve_of(self.spec, self.data(arm.name, proxy), recorded=None))

    def data(self, arm: str, value: int) -> CurveData:
        """The finished trials of one curve."""
        return CurveData(arm=arm, axis_value=value, observations=tuple(self.observations.get((arm, value), ())))

    def result(self, *, state: str = "running") -> StudyResult:
        """The document over what has finished so far."""
        curves = [self.data(arm, value) for arm, value in self.observations]
        cost = Cost(device_seconds=0.0, tokens=0, trials=len(self.asked), reused=0)
        study = StudyRef(id="st_1", name=self.spec.name, state=state)
        return judge_study(self.spec, curves, recorded=self.recorded, study=study, cost=cost)
