"""Does an arm's learning rate transfer? The rules of verdict.md in their order; the first that applies is the verdict.

Every verdict says why, in sentences with numbers, and where it is inconclusive what would settle it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import Literal

from mutransfer.drift import slope, total_drift
from mutransfer.fit import FittedCurve
from mutransfer.points import tidy
from mutransfer.regret import diverged_at, loss_at, regret
from mutransfer.result import CurveRole, CurveStatus, Interval, Outcome, Regret, Tolerances, Verdict
from mutransfer.spec import Verification

#: A verdict needs a target this many times the proxy.
WANTED_RATIO = 4
#: A wider model counts as worse only beyond this many standard errors.
_WORSE_STDERRS = 2.0
_JUDGED = (CurveStatus.BRACKETED, CurveStatus.EDGE_LIMITED)


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of one arm: over which axis, at which values, with which tolerances."""

    axis: Literal["width", "depth"]
    proxies: tuple[int, ...]
    targets: tuple[int, ...]
    verify: Verification
    tolerances: Tolerances
    seeds_max: int | None = None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything measured on one arm, as the rules need it."""

    question: Question
    recorded: float | None
    proxy: FittedCurve | None
    curves: tuple[FittedCurve, ...]
    drift: Interval | None
    regrets: tuple[Regret, ...]

    @property
    def targets(self) -> tuple[FittedCurve, ...]:
        """The targets' curves, rising."""
        return tuple(c for c in self.curves if c.curve.role is CurveRole.TARGET)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One reason, and what to do about it where something can be done."""

    reason: str
    advice: str = ""


def judge_arm(question: Question, curves: Sequence[FittedCurve], *, recorded: float | None) -> Verdict:
    """The verdict over the curves of one arm (any order; those of other values of the axis are ignored)."""
    evidence = _evidence(question, curves, recorded)
    outcome, findings = _decide(evidence)
    return Verdict(
        outcome=outcome,
        reasons=tuple(f.reason for f in findings),
        advice=tuple(dict.fromkeys(f.advice for f in findings if f.advice)),
        proxy=question.proxies[-1],
        target=question.targets[-1] if question.targets else None,
        recorded_lr_octaves=recorded,
        total_drift_octaves=evidence.drift,
        slope_octaves_per_doubling=slope(evidence.curves),
        regret_nats=evidence.regrets,
        wider_is_better=_wider_is_better(evidence),
        tolerances=question.tolerances,
    )


def _evidence(question: Question, curves: Sequence[FittedCurve], recorded: float | None) -> Evidence:
    known = {c.axis_value: c for c in curves}
    ordered = tuple(known[v] for v in (*question.proxies, *question.targets) if v in known)
    proxy = known.get(question.proxies[-1])
    last = known.get(question.targets[-1]) if question.targets else None
    return Evidence(
        question=question,
        recorded=recorded,
        proxy=proxy,
        curves=ordered,
        drift=None if proxy is None or last is None else total_drift(proxy, last),
        regrets=tuple(
            Regret(width=v, value=None, low=None, high=None)
            if recorded is None or v not in known
            else regret(known[v], recorded)
            for v in question.targets
        ),
    )


def _decide(evidence: Evidence) -> tuple[Outcome, list[Finding]]:
    if findings := _cannot_judge(evidence):
        return Outcome.INCONCLUSIVE, findings
    if findings := _drifts(evidence):
        return Outcome.DRIFTS, findings
    if not (findings := _doubts(evidence)):
        return Outcome.TRANSFERS, [_transfers(evidence)]
    return Outcome.INCONCLUSIVE, findings


# --- rule 1: what makes judging impossible ---------------------------------------------------------------------------


def _cannot_judge(evidence: Evidence) -> list[Finding]:
    question = evidence.question
    checks = [_proxy_lost(evidence), *_missing(evidence), _verification(question), _ratio(question)]
    return [finding for finding in checks if finding is not None]


def _proxy_lost(evidence: Evidence) -> Finding | None:
    question, proxy = evidence.question, evidence.proxy
    where = f"{question.axis} {question.proxies[-1]}"
    if proxy is None or proxy.curve.status is CurveStatus.INCOMPLETE:
        return None  # said by _missing
    if proxy.curve.status not in _JUDGED:
        return Finding(
            reason=f"no learning rate was recorded: the curve at the proxy, {where}, is {proxy.curve.status.value}",
            advice="widen search.lr_octaves.limit, or train longer: the best rate must have worse ones on both sides",
        )
    if evidence.recorded is None:
        return Finding(reason=f"no learning rate has been recorded at {where} yet")
    return None


def _missing(evidence: Evidence) -> list[Finding]:
    question = evidence.question
    known = {c.axis_value: c for c in evidence.curves}
    findings = []
    for value in (*question.proxies, *question.targets):
        curve = known.get(value)
        if curve is None or not curve.points.lrs:
            findings.append(Finding(reason=f"{question.axis} {value} is missing: nothing has finished there"))
        elif curve.curve.status is CurveStatus.INCOMPLETE and _is_searched(question, value):
            findings.append(Finding(reason=f"{question.axis} {value} is missing: its curve is not finished"))
    return findings


def _is_searched(question: Question, value: int) -> bool:
    """Whether a whole curve is due at this value: targets have one under full verification only."""
    return value in question.proxies or question.verify is Verification.FULL


def _verification(question: Question) -> Finding | None:
    if question.verify is Verification.FULL or not question.targets:
        return None
    return Finding(
        reason=f"verification is `{question.verify.value}`: the targets' own optima are unknown",
        advice="set verify: full",
    )


def _ratio(question: Question) -> Finding | None:
    proxy = question.proxies[-1]
    if question.targets and question.targets[-1] >= WANTED_RATIO * proxy:
        return None
    last = f"the largest target, {question.targets[-1]}, is" if question.targets else "there is no target"
    reason = f"{last} less than {WANTED_RATIO} times" if question.targets else f"{last} to compare with"
    return Finding(
        reason=f"{reason} the largest proxy, {proxy}",
        advice=f"add a target of {question.axis} {WANTED_RATIO * proxy} or more",
    )


# --- rule 2: what shows that it does not transfer --------------------------------------------------------------------


def _drifts(evidence: Evidence) -> list[Finding]:
    return [*_diverging(evidence), *_moved(evidence), *_costly(evidence)]


def _diverging(evidence: Evidence) -> list[Finding]:
    findings = []
    for fitted in evidence.targets:
        counts = None if evidence.recorded is None else diverged_at(fitted.points, evidence.recorded)
        if counts is not None and 2 * counts[0] >= counts[1]:
            reason = (
                f"the recorded rate 2^{evidence.recorded:g} diverged at {evidence.question.axis} "
                f"{fitted.axis_value} in {counts[0]} of {counts[1]} seeds"
            )
            findings.append(Finding(reason=reason))
    return findings


def _moved(evidence: Evidence) -> list[Finding]:
    drift, limit = evidence.drift, evidence.question.tolerances.drift_octaves
    if drift is None or not _wholly_outside(drift, limit):
        return []
    return [Finding(reason=f"{_drift_sentence(evidence)}, wholly outside ±{limit:g}")]


def _wholly_outside(interval: Interval, limit: float) -> bool:
    above = interval.low is not None and interval.low > limit
    return above or (interval.high is not None and interval.high < -limit)


def _drift_sentence(evidence: Evidence) -> str:
    question = evidence.question
    span = f"from {question.axis} {question.proxies[-1]} to {question.targets[-1]}"
    return f"the optimum moved by {show(evidence.drift, signed=True)} octaves {span}"


def _costly(evidence: Evidence) -> list[Finding]:
    limit = evidence.question.tolerances.regret_nats
    return [
        Finding(
            reason=f"the recorded rate costs {show(r, digits=4)} nats at {evidence.question.axis} {r.width}, "
            f"more than {limit:g}"
        )
        for r in evidence.regrets
        if r.low is not None and r.low > limit
    ]


# --- rules 3 and 4: what still stands between the evidence and `transfers` -------------------------------------------


def _doubts(evidence: Evidence) -> list[Finding]:
    return [*_targets_lost(evidence), *_drift_open(evidence), *_regret_open(evidence)]


def _targets_lost(evidence: Evidence) -> list[Finding]:
    return [
        Finding(
            reason=f"the curve at {evidence.question.axis} {c.axis_value} is {c.curve.status.value}: it has no optimum",
            advice="widen search.lr_octaves.limit",
        )
        for c in evidence.targets
        if c.curve.status not in _JUDGED
    ]


def _drift_open(evidence: Evidence) -> list[Finding]:
    drift, limit = evidence.drift, evidence.question.tolerances.drift_octaves
    if drift is None:
        return []  # said by _targets_lost
    if drift.low is not None and drift.high is not None and -limit <= drift.low and drift.high <= limit:
        return []
    reason = f"{_drift_sentence(evidence)}: neither inside nor outside ±{limit:g}"
    return [Finding(reason=reason, advice=_more_seeds(evidence.question))]


def _regret_open(evidence: Evidence) -> list[Finding]:
    limit, axis = evidence.question.tolerances.regret_nats, evidence.question.axis
    lost = {c.axis_value for c in evidence.targets if c.curve.status not in _JUDGED}
    findings = []
    for r in evidence.regrets:
        if r.width in lost or (r.high is not None and r.high <= limit):
            continue
        if r.value is None:
            reason = f"the loss of the recorded rate at {axis} {r.width} was not measured"
        else:
            reason = f"the recorded rate may cost more than {limit:g} nats at {axis} {r.width}: {show(r, digits=4)}"
        findings.append(Finding(reason=reason, advice=_more_seeds(evidence.question)))
    return findings


def _more_seeds(question: Question) -> str:
    if question.seeds_max is None:
        return "add seeds"
    return f"add seeds: raise search.seeds.max above {question.seeds_max}"


def _transfers(evidence: Evidence) -> Finding:
    tolerances = evidence.question.tolerances
    worst = max((r.high for r in evidence.regrets if r.high is not None), default=0.0)
    return Finding(
        reason=f"{_drift_sentence(evidence)}, inside ±{tolerances.drift_octaves:g}, and the recorded rate costs "
        f"at most {worst:.4f} nats at any target (tolerance {tolerances.regret_nats:g})"
    )


# --- reported besides ------------------------------------------------------------------------------------------------


def _wider_is_better(evidence: Evidence) -> bool | None:
    """Whether the loss at the recorded rate falls from the proxy to the last target and clearly rises nowhere between.

    None while it is not known at the proxy and every target; False where the rate diverges.
    """
    if evidence.recorded is None or evidence.proxy is None or not evidence.targets:
        return None
    if _diverging(evidence):
        return False
    losses = [loss_at(c, evidence.recorded) for c in (evidence.proxy, *evidence.targets)]
    if len(losses) != 1 + len(evidence.question.targets):
        return None
    known = [loss for loss in losses if loss is not None]
    if len(known) != len(losses):
        return None
    spreads = [0.0 if loss.draws_B is None else float(loss.draws_B.std()) for loss in known]
    margins = [_WORSE_STDERRS * sqrt(a * a + b * b) for a, b in pairwise(spreads)]
    rises = any(b.value - a.value > margin for (a, b), margin in zip(pairwise(known), margins, strict=True))
    return not rises and known[-1].value < known[0].value


def show(interval: Interval | Regret | None, *, digits: int = 2, signed: bool = False) -> str:
    """`0.14 [-0.20, 0.50]`, with a question mark for what the data leave open."""
    if interval is None or interval.value is None:
        return "?"
    sign = "+" if signed else ""
    low, high = ("?" if b is None else f"{tidy(b):{sign}.{digits}f}" for b in (interval.low, interval.high))
    return f"{interval.value:{sign}.{digits}f} [{low}, {high}]"
