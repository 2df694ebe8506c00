"""From finished trials to the result document: every curve fitted, every arm judged.

Deterministic: each curve's bootstrap stream is derived from its arm and size, so the same trials give the same document
bit for bit, whoever computes it, and in whatever order the trials come.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
import hashlib

from mutransfer.base import digest
from mutransfer.errors import SpecError
from mutransfer.fit import FittedCurve, fit_curve_full
from mutransfer.plan import curve_proposal
from mutransfer.result import (
    ArmResult,
    Cost,
    Curve,
    CurveRole,
    StudyRef,
    StudyResult,
    Tolerances,
)
from mutransfer.spec import ArmSpec, Parametrization, StudySpec, Verification
from mutransfer.sweeps import parse_sweeps
from mutransfer.trial import Observation
from mutransfer.tuning import tuned_arm
from mutransfer.verdict import WANTED_RATIO, Question, judge_arm


@dataclass(frozen=True, kw_only=True)
class CurveData:
    """The finished trials of one curve; `unavailable` are (lr_octaves, seed) that failed for good."""

    arm: str
    axis_value: int
    observations: tuple[Observation, ...]
    unavailable: Collection[tuple[float, int]] = ()


def recorded_lr(curve: Curve) -> float | None:
    """The learning rate to transfer from a proxy's curve: its optimum to 0.01 octave, None when it has none."""
    return None if curve.optimum_octaves is None else round(curve.optimum_octaves.value, 2) + 0.0


def bootstrap_seed(arm: str, axis_value: int) -> int:
    """The seed of a curve's bootstrap stream."""
    return int.from_bytes(hashlib.sha256(f"mutransfer curve {arm} {axis_value}".encode()).digest()[:6])


def judge_study(
    spec: StudySpec,
    curves: Iterable[CurveData],
    *,
    recorded: Mapping[str, float | None],
    study: StudyRef,
    cost: Cost,
    tuned: Mapping[str, Mapping[str, float]] | None = None,
) -> StudyResult:
    """The result document over what has finished so far; curves with trials still due are `incomplete`.

    `tuned` are the hyperparameters that the tune phase settled for each arm.
    """
    data = {(curve.arm, curve.axis_value): curve for curve in curves}
    arms = tuple(_arm_result(spec, tuned_arm(arm, tuned or {}), data, recorded.get(arm.name)) for arm in spec.arms)
    return StudyResult(study=study, axis=spec.axis_name, arms=arms, cost=cost)


def curve_of(spec: StudySpec, data: CurveData, *, recorded: float | None) -> Curve:
    """One curve of a study, fitted (the driver records a proxy's LR from it)."""
    return _fitted(spec, data, recorded).curve


def _arm_result(
    spec: StudySpec, arm: ArmSpec, data: Mapping[tuple[str, int], CurveData], recorded: float | None
) -> ArmResult:
    known = [data[arm.name, value] for value in spec.axis.values if (arm.name, value) in data]
    fitted = [_fitted(spec, curve, recorded) for curve in known]
    tolerances = Tolerances(
        drift_octaves=spec.verdict.drift_tolerance_octaves, regret_nats=spec.verdict.regret_tolerance_nats
    )
    question = Question(
        axis=spec.axis_name, proxies=spec.axis.proxy, targets=spec.axis.targets, verify=spec.verify,
        tolerances=tolerances, seeds_max=spec.search.seeds.max,
    )  # fmt: skip
    return ArmResult(
        name=arm.name,
        optimizer=str(arm.optimizer),
        parametrization=arm.parametrization,
        overrides=arm.overrides,
        curves=tuple(f.curve for f in fitted),
        verdict=judge_arm(question, fitted, recorded=recorded),
    )


def _fitted(spec: StudySpec, data: CurveData, recorded: float | None) -> FittedCurve:
    is_target = data.axis_value in spec.axis.targets
    proposal = curve_proposal(
        spec, is_target=is_target, observations=data.observations, unavailable=data.unavailable, recorded=recorded
    )
    width, depth = spec.size_at(data.axis_value)
    return fit_curve_full(
        data.observations,
        axis_value=data.axis_value,
        width=width,
        depth=depth,
        role=CurveRole.TARGET if is_target else CurveRole.PROXY,
        rng_seed=bootstrap_seed(data.arm, data.axis_value),
        status=proposal.status,
    )


def judge_csv(
    text: str,
    *,
    drift_tolerance_octaves: float = 1.0,
    regret_tolerance_nats: float = 0.01,
    proxy: int | None = None,
    name: str = "sweeps",
) -> StudyResult:
    """Judge sweeps that were run elsewhere (see mutransfer.sweeps for the columns).

    Arms whose names end in `-mup` are shown as μP, all others as SP; the verdict does not depend on it.

    Each arm's largest width is the target; its proxy is `proxy`, or the largest width with a target four times as wide.
    Raises SpecError naming line and column, or `proxy` when an arm has no such width.
    """
    sweeps = parse_sweeps(text)
    tolerances = Tolerances(drift_octaves=drift_tolerance_octaves, regret_nats=regret_tolerance_nats)
    names = tuple(dict.fromkeys(arm for arm, _ in sweeps))
    arms = tuple(
        _sweep_result(arm, {w: o for (a, w), o in sweeps.items() if a == arm}, tolerances, proxy) for arm in names
    )
    study = StudyRef(id=f"csv_{digest({'csv': text}, length=16)}", name=name, state="completed")
    cost = Cost(device_seconds=0.0, tokens=0, trials=sum(len(o) for o in sweeps.values()), reused=0)
    return StudyResult(study=study, arms=arms, cost=cost)


def _sweep_result(
    name: str, curves: Mapping[int, tuple[Observation, ...]], tolerances: Tolerances, proxy: int | None
) -> ArmResult:
    widths = sorted(curves)
    if proxy is not None and proxy not in widths:
        raise SpecError.at("proxy", f"arm {name} has no width {proxy}: it has {', '.join(map(str, widths))}")
    far = [w for w in widths if w * WANTED_RATIO <= widths[-1]]
    at = proxy if proxy is not None else max(far, default=widths[0])
    fitted = [_sweep_curve(name, width, curves[width], at) for width in widths]
    question = Question(
        axis="width",
        proxies=tuple(w for w in widths if w <= at),
        targets=tuple(w for w in widths if w > at),
        verify=Verification.FULL,
        tolerances=tolerances,
    )
    recorded = next(recorded_lr(f.curve) for f in fitted if f.axis_value == at)
    stem, _, last = name.rpartition("-")
    is_mup = last.lower() in (Parametrization.MUP.value, "μp")
    return ArmResult(
        name=name,
        optimizer=stem or name,
        parametrization=Parametrization.MUP if is_mup else Parametrization.SP,
        curves=tuple(f.curve for f in fitted),
        verdict=judge_arm(question, fitted, recorded=recorded),
    )


def _sweep_curve(arm: str, width: int, observations: Sequence[Observation], proxy: int) -> FittedCurve:
    return fit_curve_full(
        observations,
        axis_value=width,
        width=width,
        depth=0,
        role=CurveRole.PROXY if width <= proxy else CurveRole.TARGET,
        rng_seed=bootstrap_seed(arm, width),
    )
