"""From a study to its trials: which phase asks for what, given what has finished, and what it may cost.

Everything is a pure function of the spec and of finished trials: a driver that starts again asks for exactly the
missing ones.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import floor

from mutransfer.architecture import architecture, parameter_count
from mutransfer.base import Value
from mutransfer.errors import ScalingError
from mutransfer.points import lr_key
from mutransfer.result import CurveStatus
from mutransfer.search import FINE_OCTAVES, Proposal, next_points, proxy_start, target_start
from mutransfer.spec import ArmSpec, StudySpec, Verification
from mutransfer.trial import Observation

CurveKey = tuple[str, int]  # (arm name, axis value)

#: What one CPU core of a small machine reaches on these models, and what a step costs however small the model is.
FLOPS_PER_SECOND = 7e10
SECONDS_PER_STEP = 0.012
#: A step under the audit over a plain one. `python -m benchmarks.audit_cost` printed 1.5 to 2.9 at widths 32 to 512
#: (2026-11-26, 2 cores of an AMD EPYC).
AUDIT_STEP_RATIO = 3.0


class Phase(StrEnum):
    """The phases of a study, in order; each is recorded once."""

    AUDIT = "audit"  # the rules checked on the study's models, before anything is searched: no trials
    TUNE = "tune"  # several hyperparameters sampled together at the largest proxy
    SEARCH = "search"  # the LR search of each arm at its proxies
    TRANSFER = "transfer"  # each target at the LR recorded in SEARCH
    VERIFY = "verify"  # the targets' own optima, as far as `verify` asks
    VERDICT = "verdict"  # fit and judge: no trials


@dataclass(frozen=True, order=True)
class TrialRequest:
    """One trial that a study needs, by its place in the study."""

    arm: str
    axis_value: int
    lr_octaves: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What is known so far. `recorded` holds an arm once its search is over: its LR, or None for no optimum."""

    observations: Mapping[CurveKey, Sequence[Observation]] = field(default_factory=dict)
    unavailable: Mapping[CurveKey, Collection[tuple[float, int]]] = field(default_factory=dict)
    recorded: Mapping[str, float | None] = field(default_factory=dict)
    pending: frozenset[TrialRequest] = frozenset()


def requests(spec: StudySpec, phase: Phase, progress: Progress) -> tuple[TrialRequest, ...]:
    """New trials for `phase`, longest first. Empty with nothing pending means that the phase is complete."""
    pending = {(request.arm, request.axis_value) for request in progress.pending}
    order = {arm.name: place for place, arm in enumerate(spec.arms)}
    found = [
        TrialRequest(arm.name, value, lr, seed)
        for arm in spec.arms
        for value in phase_values(spec, phase)
        if (arm.name, value) not in pending
        for lr, seed in _wanted(spec, phase, arm, value, progress)
    ]
    return tuple(sorted(found, key=lambda r: (-r.axis_value, r.seed, order[r.arm], r.lr_octaves)))


def phase_values(spec: StudySpec, phase: Phase) -> tuple[int, ...]:
    """The values of the axis that a phase trains at (the audit's widths: its runs are no trials)."""
    match phase:
        case Phase.AUDIT:
            return spec.audit_widths
        case Phase.TUNE:
            return spec.axis.proxy[-1:] if spec.search.samples_first else ()
        case Phase.SEARCH:
            return spec.axis.proxy
        case Phase.TRANSFER | Phase.VERIFY:
            return spec.axis.targets
        case Phase.VERDICT:
            return ()


def _wanted(
    spec: StudySpec, phase: Phase, arm: ArmSpec, value: int, progress: Progress
) -> tuple[tuple[float, int], ...]:
    key = (arm.name, value)
    observations, unavailable = progress.observations.get(key, ()), progress.unavailable.get(key, ())
    recorded = progress.recorded.get(arm.name)
    if phase is Phase.TRANSFER:
        return () if recorded is None else _at(spec, (recorded,), observations, unavailable)
    return curve_proposal(
        spec, is_target=phase is Phase.VERIFY, observations=observations, unavailable=unavailable, recorded=recorded
    ).points


def _at(
    spec: StudySpec,
    rates: Iterable[float],
    observations: Sequence[Observation],
    unavailable: Collection[tuple[float, int]],
) -> tuple[tuple[float, int], ...]:
    """The first `seeds.min` seeds of each rate, less what was asked before or lies outside the limit."""
    asked = {(lr_key(o.lr_octaves), o.seed) for o in observations} | {(lr_key(lr), seed) for lr, seed in unavailable}
    low, high = spec.search.lr_octaves.limit
    wanted = [(lr_key(lr), seed) for lr in rates if low <= lr <= high for seed in range(spec.search.seeds.min)]
    return tuple(point for point in wanted if point not in asked)


def curve_proposal(
    spec: StudySpec,
    *,
    is_target: bool,
    observations: Sequence[Observation],
    unavailable: Collection[tuple[float, int]],
    recorded: float | None,
) -> Proposal:
    """What one curve still needs before the verdict; no points left means that it is finished.

    A target without a recorded rate, or that `verify` leaves out, needs nothing and is INCOMPLETE: no optimum.
    """
    if not is_target:
        return next_points(spec.search, observations, start=proxy_start(spec.search), unavailable=unavailable)
    if recorded is None:
        return Proposal(points=(), status=CurveStatus.INCOMPLETE, reason="no rate was recorded at the proxy")
    if spec.verify is Verification.FULL:
        start = target_start(spec.search, recorded)
        return next_points(spec.search, observations, start=start, unavailable=unavailable)
    shifts = (0.0, -1.0, 1.0) if spec.verify is Verification.POINT else (0.0,)
    points = _at(spec, [recorded + shift for shift in shifts], observations, unavailable)
    return Proposal(points=points, status=CurveStatus.INCOMPLETE, reason=f"verification is {spec.verify.value}")


class CurveEstimate(Value):
    """What one curve may take, the same for every arm: trials in the usual case and at most."""

    phase: str
    axis_value: int
    arms: int
    trials_expected: int
    trials_max: int
    steps: int
    parameters: int
    tokens_per_trial: int
    seconds_per_trial: float


class PlanEstimate(Value):
    """A study's cost before it runs. `max` is a bound: every curve searched to its limits with all seeds.

    `audit_seconds` is the audit's, which the driver runs before the first trial: no part of the other figures.
    """

    curves: tuple[CurveEstimate, ...]
    trials_expected: int
    trials_max: int
    tokens_expected: int
    tokens_max: int
    device_seconds_expected: float
    device_seconds_max: float
    audit_seconds: float = 0.0


def estimate(
    spec: StudySpec,
    *,
    vocab: int,
    flops_per_second: float = FLOPS_PER_SECOND,
    seconds_per_step: float = SECONDS_PER_STEP,
) -> PlanEstimate:
    """Estimate a study: a training token costs 6 operations a weight, and a step at least `seconds_per_step`."""
    curves = tuple(
        _curve_estimate(spec, phase, value, vocab, flops_per_second, seconds_per_step)
        for phase in (Phase.TUNE, Phase.SEARCH, Phase.TRANSFER, Phase.VERIFY)
        for value in phase_values(spec, phase)
        if phase is not Phase.VERIFY or spec.verify is not Verification.NONE
    )
    return PlanEstimate(
        curves=curves,
        trials_expected=sum(c.arms * c.trials_expected for c in curves),
        trials_max=sum(c.arms * c.trials_max for c in curves),
        tokens_expected=sum(c.arms * c.trials_expected * c.tokens_per_trial for c in curves),
        tokens_max=sum(c.arms * c.trials_max * c.tokens_per_trial for c in curves),
        device_seconds_expected=sum(c.arms * c.trials_expected * c.seconds_per_trial for c in curves),
        device_seconds_max=sum(c.arms * c.trials_max * c.seconds_per_trial for c in curves),
        audit_seconds=_audit_seconds(spec, vocab, flops_per_second, seconds_per_step),
    )


def _audit_seconds(spec: StudySpec, vocab: int, flops_per_second: float, seconds_per_step: float) -> float:
    """Every arm, width and seed of the audit, one after the other."""
    if spec.audit is None:
        return 0.0
    _, depth = spec.size_at(spec.axis.proxy[0])
    runs, tokens = len(spec.arms) * spec.audit.seeds, spec.train.batch * spec.model.context
    steps = [
        seconds_per_step + 6.0 * _parameters(spec, (width, depth), vocab)[1] * tokens / flops_per_second
        for width in spec.audit_widths
    ]
    return round(runs * spec.audit.steps * AUDIT_STEP_RATIO * sum(steps), 3)


def _curve_estimate(
    spec: StudySpec, phase: Phase, value: int, vocab: int, flops_per_second: float, seconds_per_step: float
) -> CurveEstimate:
    parameters, trained = _parameters(spec, spec.size_at(value), vocab)
    steps = spec.train.horizon_steps(context=spec.model.context, parameters=parameters)
    tokens = steps * spec.train.batch * spec.model.context
    operations = 6.0 * trained * tokens + 2.0 * trained * spec.eval.tokens
    expected, most = _trial_counts(spec, phase)
    return CurveEstimate(
        phase=phase.value,
        axis_value=value,
        arms=len(spec.arms),
        trials_expected=expected,
        trials_max=most,
        steps=steps,
        parameters=parameters,
        tokens_per_trial=tokens,
        seconds_per_trial=round(steps * seconds_per_step + operations / flops_per_second, 3),
    )


def _parameters(spec: StudySpec, size: tuple[int, int], vocab: int) -> tuple[int, int]:
    """(all weights, those that multiply) at one (width, depth); a model of the user's own is guessed as nanogpt."""
    width, depth = size
    try:
        infos = architecture(spec.model, width=width, depth=depth, vocab=vocab)
    except ScalingError:
        trained = (4 + 2 * spec.model.mlp_ratio) * depth * width**2 + vocab * width
        return trained + vocab * width, trained
    return parameter_count(infos), parameter_count(tuple(i for i in infos if not i.role.is_lookup))


def _trial_counts(spec: StudySpec, phase: Phase) -> tuple[int, int]:
    """(expected, most) trials of one curve in one phase."""
    seeds = spec.search.seeds
    if phase is Phase.TUNE:
        return spec.search.samples, spec.search.samples
    if phase is Phase.TRANSFER:
        return seeds.min, seeds.min
    if phase is Phase.VERIFY and spec.verify is Verification.POINT:
        return 2 * seeds.min, 2 * seeds.min
    coarse = len(spec.search.lr_octaves.coarse()) if phase is Phase.SEARCH else 4
    if spec.search.algorithm == "grid":
        rates = len(spec.search.lr_octaves.coarse())
        return rates * seeds.min, rates * seeds.max
    low, high = spec.search.lr_octaves.limit
    lattice = floor((high - low) / FINE_OCTAVES) + 1
    # The half octaves around the best, and on every other curve one more seed in its window of seven rates.
    expected = (coarse + 4) * seeds.min + (3 if seeds.max > seeds.min else 0)
    return expected, lattice * seeds.max
