"""Studies that look like real ones: their specs, and trials drawn from bowls with a known optimum."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp
from random import Random

from mutransfer.judge import CurveData, curve_of, judge_study, recorded_lr
from mutransfer.plan import Phase, Progress, TrialRequest, requests
from mutransfer.result import Cost, StudyRef, StudyResult
from mutransfer.spec import StudySpec, parse_study
from mutransfer.trial import HistoryPoint, Observation, TrialResult, TrialStatus

WIDTHS = (32, 64, 128, 256)
STEPS = 300
VOCAB_NATS = 4.6
SEED_NOISE = 0.004


@dataclass(frozen=True, kw_only=True)
class Bowl:
    """Loss against learning rate of one arm at one width: minimum `floor` at `optimum`, diverging above `edge`."""

    optimum: float
    floor: float
    curvature: float
    edge: float

    def loss(self, lr_octaves: float, seed: int) -> float | None:
        """Nats per token; None where the run diverges. A seed's offset is the same at every rate."""
        if lr_octaves > self.edge:
            return None
        away = lr_octaves - self.optimum
        skew = 0.006 * max(0.0, away) ** 3
        draw = Random(f"{self.optimum}/{lr_octaves}/{seed}")
        offset = Random(f"offset/{seed}").gauss(0.0, 0.004)
        return self.floor + self.curvature * away**2 + skew + offset + draw.gauss(0.0, SEED_NOISE)


def _bowls(optima: tuple[float, ...], floors: tuple[float, ...], edge: float) -> dict[int, Bowl]:
    return {
        width: Bowl(optimum=optimum, floor=floor, curvature=0.034, edge=edge if optimum > -5.5 else optimum + 2.4)
        for width, optimum, floor in zip(WIDTHS, optima, floors, strict=True)
    }


#: As an independent trial saw them: SP drifts by more than an octave a doubling, μP stays.
ARMS: Mapping[str, Mapping[int, Bowl]] = {
    "adamw-sp": _bowls((-5.0, -5.3, -6.6, -7.4), (2.312, 2.208, 2.131, 2.094), -2.6),
    "adamw-mup": _bowls((-5.0, -4.6, -4.5, -4.5), (2.309, 2.188, 2.094, 2.021), -2.1),
    "muon-mup": _bowls((-4.2, -4.1, -4.0, -4.05), (2.254, 2.131, 2.043, 1.972), -1.4),
}


def study_spec(name: str = "quickstart", **changes: object) -> StudySpec:
    """The quickstart's question; `changes` replace top-level fields."""
    document: dict[str, object] = {
        "version": 1,
        "name": name,
        "model": {"family": "nanogpt", "depth": 2, "head_dim": 16, "context": 32},
        "train": {"batch": 32, "steps": STEPS},
        "widths": {"base": 32, "proxy": [32, 64], "targets": [128, 256]},
        "arms": [
            {"optimizer": "adamw", "parametrization": "sp"},
            {"optimizer": "adamw", "parametrization": "mup"},
            {"optimizer": "muon", "parametrization": "mup"},
        ],
    }
    return parse_study(document | changes)


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """A study played through the real plan and search, trials answered by the bowls, up to `stop_after` of them."""

    spec: StudySpec
    trials: tuple[tuple[Phase, TrialRequest, float | None], ...]
    recorded: dict[str, float | None]
    phases: tuple[Phase, ...]  # finished ones

    def observations(self) -> dict[tuple[str, int], tuple[Observation, ...]]:
        """What the search and the fit have seen."""
        found: dict[tuple[str, int], list[Observation]] = {}
        for _, request, loss in self.trials:
            seen = Observation(lr_octaves=request.lr_octaves, seed=request.seed, loss_nats=loss)
            found.setdefault((request.arm, request.axis_value), []).append(seen)
        return {key: tuple(values) for key, values in found.items()}

    def result(self, study_id: str, state: str) -> StudyResult:
        """The document that the kernel judges from these trials."""
        curves = [CurveData(arm=a, axis_value=v, observations=o) for (a, v), o in self.observations().items()]
        seconds = sum(4.0 * (request.axis_value / 32) ** 1.2 for _, request, _ in self.trials)
        cost = Cost(
            device_seconds=seconds, tokens=len(self.trials) * STEPS * 1024, trials=len(self.trials), reused=12,
            direct_search_device_seconds=0.6 * seconds,
        )  # fmt: skip
        study = StudyRef(id=study_id, name=self.spec.name, state=state)
        return judge_study(self.spec, curves, recorded=self.recorded, study=study, cost=cost)


def simulate(
    spec: StudySpec, *, stop_after: int = 100_000, arms: Mapping[str, Mapping[int, Bowl]] = ARMS
) -> Simulation:
    """Play a study's phases in order, as its driver would."""
    trials: list[tuple[Phase, TrialRequest, float | None]] = []
    recorded: dict[str, float | None] = {}
    finished: list[Phase] = []
    for phase in (Phase.SEARCH, Phase.TRANSFER, Phase.VERIFY):
        while True:
            so_far = Simulation(spec=spec, trials=tuple(trials), recorded=recorded, phases=tuple(finished))
            asked = requests(spec, phase, Progress(observations=so_far.observations(), recorded=recorded))
            for request in asked[: max(0, stop_after - len(trials))]:
                bowl = arms[request.arm][request.axis_value]
                trials.append((phase, request, bowl.loss(request.lr_octaves, request.seed)))
            if len(trials) >= stop_after:
                return Simulation(spec=spec, trials=tuple(trials), recorded=recorded, phases=tuple(finished))
            if not asked:
                break
        finished.append(phase)
        if phase is Phase.SEARCH:
            proxy, seen = spec.axis.proxy[-1], so_far.observations()
            for arm in spec.arms:
                data = CurveData(arm=arm.name, axis_value=proxy, observations=seen[arm.name, proxy])
                recorded[arm.name] = recorded_lr(curve_of(spec, data, recorded=None))
    return Simulation(spec=spec, trials=tuple(trials), recorded=recorded, phases=(*finished, Phase.VERDICT))


def history(loss: float | None, seed: int) -> tuple[HistoryPoint, ...]:
    """Training loss every 10 steps: an exponential approach, cut off by divergence."""
    draw = Random(f"history/{loss}/{seed}")
    points = []
    for step in range(10, STEPS + 1, 10):
        if loss is None and step > 60:
            points.append(HistoryPoint(step=step, train_loss_nats=VOCAB_NATS + 0.9))
            break
        end = 2.3 if loss is None else loss
        value = end + (VOCAB_NATS - end) * exp(-step / 45) + draw.gauss(0.0, 0.012)
        points.append(HistoryPoint(step=step, train_loss_nats=value))
    return tuple(points)


def trial_result(loss: float | None, *, width: int, seed: int) -> TrialResult:
    """What a worker would have reported."""
    points = history(loss, seed)
    steps = points[-1].step if loss is None else STEPS
    return TrialResult(
        status=TrialStatus.DIVERGED if loss is None else TrialStatus.FINISHED,
        loss_nats=loss,
        initial_loss_nats=VOCAB_NATS,
        train_loss_nats=points[-1].train_loss_nats,
        history=points,
        diverged_at_step=steps if loss is None else None,
        reason="smoothed training loss above ln vocab + 0.5" if loss is None else "",
        steps=steps,
        tokens=steps * 32 * 32,
        parameters=12 * 2 * width**2,
        device_seconds=4.0 * (width / 32) ** 1.2,
        device="cpu",
    )
