"""The findings of a study as sentences: the answer above the fold, and the titles of charts."""

from dataclasses import dataclass

from mutransfer.result import ArmResult, Curve, CurveRole, Interval, Outcome, StudyResult
from mutransfer.spec import Parametrization, StudySpec
from service.reports import numbers

_HAS_OPTIMUM = "a width needs worse losses on both sides of its best learning rate before it has an optimum"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer to the study's question: one line to act on, one line of evidence; `word` is the outcome or state."""

    headline: str
    evidence: str
    word: str


def size_of(curve: Curve, axis: str) -> int:
    """The curve's place on the study's axis: its width, or its depth."""
    return curve.depth if axis == "depth" else curve.width


def curve_at(arm: ArmResult, size: int | None, axis: str) -> Curve | None:
    """The arm's curve at one width (or depth)."""
    return next((curve for curve in arm.curves if size_of(curve, axis) == size), None)


def best_arm(result: StudyResult) -> ArmResult | None:
    """The transferring arm with the lowest fitted loss at its largest target: the one the recipe defaults to."""
    able = [arm for arm in result.arms if arm.verdict.outcome is Outcome.TRANSFERS]
    return min(able, key=lambda arm: (_target_loss(arm, result.axis), arm.name), default=None)


def _target_loss(arm: ArmResult, axis: str) -> float:
    curve = curve_at(arm, arm.verdict.target, axis)
    return curve.loss_nats.value if curve is not None and curve.loss_nats is not None else float("inf")


def worst_regret(arm: ArmResult) -> float | None:
    """The largest upper bound of regret over the targets, in nats; None where one is unknown."""
    highs = [regret.high for regret in arm.verdict.regret_nats]
    known = [high for high in highs if high is not None]
    return max(known) if known and len(known) == len(highs) else None


def drift_words(drift: Interval) -> str:
    """`drift +0.14 octave [−0.20, +0.50]`."""
    return f"drift {numbers.octaves(drift.value)} {numbers.bounds(drift)}"


def evidence(arm: ArmResult) -> str:
    """`transfers: drift +0.14 octave [−0.20, +0.50], regret ≤ 0.004 nats`, with what is known."""
    parts = []
    if arm.verdict.total_drift_octaves is not None:
        parts.append(drift_words(arm.verdict.total_drift_octaves))
    if (worst := worst_regret(arm)) is not None:
        parts.append(f"regret ≤ {numbers.loss(max(worst, 0.0))} nats")
    return f"{arm.verdict.outcome.value}: {', '.join(parts)}" if parts else arm.verdict.outcome.value


def tally(result: StudyResult) -> str:
    """`Of 3 arms: 2 transfer, 1 drifts` as a sentence."""
    verbs = {Outcome.TRANSFERS: "transfer", Outcome.DRIFTS: "drift", Outcome.INCONCLUSIVE: "inconclusive"}
    counts = {outcome: sum(arm.verdict.outcome is outcome for arm in result.arms) for outcome in Outcome}
    said = [
        f"{n} {verbs[outcome] if n != 1 or outcome is Outcome.INCONCLUSIVE else verbs[outcome] + 's'}"
        for outcome, n in counts.items() if n
    ]  # fmt: skip
    return f"Of {len(result.arms)} {'arm' if len(result.arms) == 1 else 'arms'}: {', '.join(said)}."


def answer(result: StudyResult) -> Answer:
    """The answer of a study that may still be running."""
    best = best_arm(result)
    if best is not None:
        return Answer(
            headline=f"Set {numbers.rate(best.verdict.recorded_lr_octaves)} at {result.axis} {best.verdict.target}",
            evidence=f"{best.name} {evidence(best)}. {tally(result)}",
            word=Outcome.TRANSFERS.value,
        )
    if result.study.state in ("queued", "running", "pausing", "paused", "cancelling"):
        return Answer(headline="No answer yet", evidence=_progress_words(result), word=result.study.state)
    if result.study.state in ("failed", "cancelled"):
        return Answer(
            headline=f"{result.study.state.capitalize()} before an answer",
            evidence="What had finished stays here, and a new study with the same trials reuses it.",
            word=result.study.state,
        )
    if result.arms and all(arm.verdict.outcome is Outcome.DRIFTS for arm in result.arms):
        return Answer(
            headline=f"No learning rate transfers: tune it at each {result.axis}",
            evidence="; ".join(f"{arm.name} {evidence(arm)}" for arm in result.arms[:3]) + ".",
            word=Outcome.DRIFTS.value,
        )
    return Answer(headline="Not settled", evidence=_unsettled(result), word=Outcome.INCONCLUSIVE.value)


def _progress_words(result: StudyResult) -> str:
    if result.study.state == "queued":
        return "The study waits for a free driver; then its search begins at the proxies."
    if result.study.state == "paused":
        return "The study is paused: its finished trials are kept, and it goes on where it stopped when it is resumed."
    found = [arm for arm in result.arms if arm.verdict.recorded_lr_octaves is not None]
    if not found:
        return f"The search for the best learning rate is under way; {_HAS_OPTIMUM}."
    said = numbers.listed([f"{arm.name} {numbers.rate(arm.verdict.recorded_lr_octaves)}" for arm in found[:3]])
    return f"Learning rates recorded at the largest proxy: {said}. Targets are being verified."


def _unsettled(result: StudyResult) -> str:
    arm = next((arm for arm in result.arms if arm.verdict.outcome is Outcome.INCONCLUSIVE), None)
    if arm is None or not arm.verdict.reasons:
        return tally(result)
    return f"{tally(result)} {arm.name}: {arm.verdict.reasons[0].rstrip('.')}."


def optimum_title(result: StudyResult) -> str:
    """The finding of *optimal LR against width*."""
    judged = [arm for arm in result.arms if arm.verdict.total_drift_octaves is not None]
    if not judged:
        return f"The optimal learning rate at each {result.axis} measured so far"
    span = f"from {result.axis} {judged[0].verdict.proxy} to {judged[0].verdict.target}"
    held = [arm.name for arm in judged if arm.verdict.outcome is Outcome.TRANSFERS]
    rest = [arm for arm in judged if arm.verdict.outcome is not Outcome.TRANSFERS]
    moves = [
        f"{arm.name}'s {'' if held or index else 'optimum '}moves {numbers.octaves(drift.value)}"
        for index, arm in enumerate(rest)
        if (drift := arm.verdict.total_drift_octaves) is not None
    ]
    if not held:
        return f"{numbers.listed(moves)} {span}"
    kept = f"{numbers.listed(held)} {'keeps its' if len(held) == 1 else 'keep their'} optimum {span}"
    return "; ".join([kept, numbers.listed(moves)] if moves else [kept])


def loss_title(result: StudyResult) -> str:
    """The finding of *loss against LR*."""
    lows = {}
    for arm in result.arms:
        fitted = {size_of(c, result.axis): c.loss_nats.value for c in arm.curves if c.loss_nats is not None}
        if len(fitted) >= 2:
            lows[arm.name] = (fitted[min(fitted)], fitted[max(fitted)], min(fitted), max(fitted))
    if not lows:
        return f"Loss against learning rate, one curve a {result.axis}"
    name = min(lows, key=lambda key: (lows[key][1], key))
    small, large, first, last = lows[name]
    change = "falls" if large < small else "rises"
    return (
        f"The best loss of {name} {change} from {numbers.loss(small)} to {numbers.loss(large)} nats "
        f"between {result.axis} {first} and {last}"
    )


def panel_title(arm: ArmResult, axis: str) -> str:
    """What one arm's panel shows: where its minimum lies at the smallest and the largest size."""
    fitted = [(size_of(c, axis), c.optimum_octaves.value) for c in arm.curves if c.optimum_octaves is not None]
    if not fitted:
        return "no minimum yet" if any(curve.points for curve in arm.curves) else "no trial yet"
    (_, first), (_, last) = min(fitted), max(fitted)
    if len(fitted) == 1:
        return f"minimum at {numbers.power_of_two(first, 1)}"
    return f"minimum {numbers.power_of_two(first, 1)} → {numbers.power_of_two(last, 1)}"


def conditions(spec: StudySpec) -> tuple[tuple[str, str], ...]:
    """What the answer was measured under, as (name, value): μP carries an LR over width, not over these."""
    train, model = spec.train, spec.model
    horizon = (
        f"{numbers.count(train.steps)} steps" if train.steps is not None
        else f"{numbers.count(train.tokens)} tokens" if train.tokens is not None
        else f"{train.tokens_per_parameter or 0:g} tokens a parameter"
    )  # fmt: skip
    sizes = (
        f"{numbers.listed([str(v) for v in spec.axis.proxy])} → {numbers.listed([str(v) for v in spec.axis.targets])}"
    )
    fixed = f"depth {model.depth}" if spec.depth is None else f"width {spec.widths.proxy[0]}"
    return (
        (f"{spec.axis_name.capitalize()}s", f"{sizes} (base {spec.axis.base})"),
        ("Model", f"{model.family}, {fixed}, context {model.context} tokens"),
        ("Data", f"{spec.data.source}, tokenizer {spec.data.tokenizer}"),
        ("Horizon", f"{horizon}, batch {train.batch} sequences"),
        ("Schedule", f"{train.schedule}, warm-up {train.warmup:.0%} of the steps"),
        ("Clipping", f"norm {train.clip:g}" if train.clip is not None else "none"),
        ("Weight decay", f"{train.weight_decay:g}, κ = {train.kappa:g}"),
        ("Seeds", f"{spec.search.seeds.min} to {spec.search.seeds.max} a learning rate"),
        ("Tolerances", f"drift ±{spec.verdict.drift_tolerance_octaves:g} octave, "
                       f"regret {spec.verdict.regret_tolerance_nats:g} nats"),
        ("Verification", spec.verify.value),
    )  # fmt: skip


def is_control(arm: ArmResult) -> bool:
    """Whether the arm is the SP control, which μP is judged against."""
    return arm.parametrization is Parametrization.SP


def targets(arm: ArmResult) -> tuple[Curve, ...]:
    """The curves at sizes that the rate is transferred to."""
    return tuple(curve for curve in arm.curves if curve.role is CurveRole.TARGET)
