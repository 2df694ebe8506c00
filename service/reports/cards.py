"""What a verdict card shows: the recorded rate, drift and regret as gauges against their tolerances, the reasons."""

from dataclasses import dataclass
import re

from mutransfer.result import ArmResult, Curve, Interval, Outcome, StudyResult
from mutransfer.spec import Parametrization
from service.reports import numbers, words
from service.reports.palette import LIGHT, arm_style

UNFINISHED = ("queued", "running", "pausing", "paused", "cancelling")


@dataclass(frozen=True, kw_only=True)
class Gauge:
    """An interval on a scale with its tolerance band. Places are per cent of the scale's length.

    `below` and `above` say that the interval goes on beyond the end of the scale.
    """

    label: str
    text: str
    band: tuple[float, float]
    value: float | None  # None off the scale
    low: float
    high: float
    below: bool
    above: bool
    ticks: tuple[tuple[float, str], ...]


@dataclass(frozen=True, kw_only=True)
class ArmCard:
    """One arm's verdict, ready for a template."""

    index: int
    name: str
    marker: str
    scheme: str
    outcome: str
    recorded: str | None
    recorded_note: str
    gauges: tuple[Gauge, ...]
    facts: tuple[tuple[str, str], ...]
    reasons: tuple[str, ...]
    advice: tuple[str, ...]


def scheme_name(parametrization: Parametrization) -> str:
    """`μP` or `SP`."""
    return "μP" if parametrization is Parametrization.MUP else "SP"


def sentence(text: str) -> str:
    """A reason of the verdict as a sentence: capital, true minus signs, full stop."""
    said = re.sub(r"(?<![\w])-(?=\d)", "−", text.strip())
    return said[:1].upper() + said[1:].rstrip(".") + "."


def gauge(label: str, text: str, value: Interval, *, band: tuple[float, float], scale: tuple[float, float]) -> Gauge:
    """Place an interval and its tolerance `band` on `scale` (all in the same unit)."""
    start, end = scale

    def place(number: float) -> float:
        return round(100 * (min(max(number, start), end) - start) / (end - start), 2)

    low = start if value.low is None else value.low
    high = end if value.high is None else value.high
    ends = [bound for bound in (*band, 0.0) if start < bound < end or bound == start]
    return Gauge(
        label=label, text=text, band=(place(band[0]), place(band[1])), low=place(low),
        value=place(value.value) if start <= value.value <= end else None, high=place(high),
        below=value.low is None or low < start, above=value.high is None or high > end,
        ticks=tuple((place(bound), numbers.signed(bound, 2) if bound and start < 0 else numbers.trimmed(bound, 4))
                    for bound in sorted(set(ends))),
    )  # fmt: skip


def _drift_gauge(arm: ArmResult) -> Gauge | None:
    drift, tolerance = arm.verdict.total_drift_octaves, arm.verdict.tolerances.drift_octaves
    if drift is None:
        return None
    reach = tolerance * 2.5
    return gauge(
        f"Drift {arm.verdict.proxy} → {arm.verdict.target}", f"{numbers.octaves(drift.value)} {numbers.bounds(drift)}",
        drift, band=(-tolerance, tolerance), scale=(-reach, reach),
    )  # fmt: skip


def _regret_gauge(arm: ArmResult) -> Gauge | None:
    known = [r for r in arm.verdict.regret_nats if r.value is not None]
    if not known:
        return None
    worst = max(known, key=lambda regret: (regret.value or 0.0, regret.width))
    value = Interval(value=worst.value or 0.0, low=worst.low, high=worst.high)
    tolerance = arm.verdict.tolerances.regret_nats
    text = f"{numbers.loss(value.value, 4)} {numbers.bounds(value, sign=False, digits=4)} nats"
    return gauge(f"Regret at {worst.width}", text, value, band=(0.0, tolerance), scale=(0.0, 2 * tolerance))


def _edge(curves: tuple[Curve, ...]) -> str | None:
    edges = [curve.stability_edge_octaves for curve in curves if curve.stability_edge_octaves is not None]
    ends = dict.fromkeys((min(edges), max(edges))) if edges else ()
    return " … ".join(numbers.power_of_two(edge) for edge in ends) or None


def _facts(arm: ArmResult) -> tuple[tuple[str, str], ...]:
    slope, better = arm.verdict.slope_octaves_per_doubling, arm.verdict.wider_is_better
    found = (
        ("Slope", None if slope is None else f"{numbers.interval(slope)} octaves a doubling"),
        ("Wider is better", {True: "yes", False: "no", None: None}[better]),
        ("Stability edge", _edge(arm.curves)),
    )
    return tuple((name, text) for name, text in found if text is not None)


def arm_cards(result: StudyResult) -> tuple[ArmCard, ...]:
    """A card for every arm, in the study's order."""
    return tuple(_card(result, arm, index) for index, arm in enumerate(result.arms))


def _card(result: StudyResult, arm: ArmResult, index: int) -> ArmCard:
    verdict, recorded = arm.verdict, arm.verdict.recorded_lr_octaves
    # Until a study has ended, "inconclusive" only means that trials are missing: say what is going on instead.
    waiting = result.study.state in UNFINISHED and verdict.outcome is Outcome.INCONCLUSIVE
    return ArmCard(
        index=index % (len(LIGHT.arms) - 1),
        name=arm.name,
        marker=arm_style(index, arm.parametrization, LIGHT).marker,
        scheme=scheme_name(arm.parametrization),
        outcome=_waiting_word(result, recorded) if waiting else verdict.outcome.value,
        recorded=None if recorded is None else numbers.rate(recorded),
        recorded_note=_note(result, arm),
        gauges=tuple(g for g in (_drift_gauge(arm), _regret_gauge(arm)) if g is not None),
        facts=_facts(arm),
        reasons=() if waiting else tuple(sentence(reason) for reason in verdict.reasons),
        advice=() if waiting else tuple(sentence(advice) for advice in verdict.advice),
    )


def _note(result: StudyResult, arm: ArmResult) -> str:
    place = f"{result.axis} {arm.verdict.proxy}"
    if arm.verdict.recorded_lr_octaves is not None:
        return f"recorded at {place}"
    if result.study.state in UNFINISHED:
        return f"to be recorded at {place}, the largest proxy"
    return f"the largest proxy, {place}, has no optimum"


def _waiting_word(result: StudyResult, recorded: float | None) -> str:
    if result.study.state in ("queued", "paused"):
        return result.study.state
    return "searching" if recorded is None else "verifying"


@dataclass(frozen=True, kw_only=True)
class Spark:
    """A study in a thumbnail: each arm's optimum against log2 width as an SVG path, over the tolerance band.

    Coordinates lie in a 120 × 40 box; `band` is (top, height).
    """

    band: tuple[float, float]
    paths: tuple[tuple[int, str, bool], ...]  # colour index, path, dashed
    label: str


def spark(result: StudyResult) -> Spark | None:
    """Drift of the optimum from the recorded rate, within ±2.5 tolerances; None before two sizes have an optimum."""
    sizes = sorted({words.size_of(curve, result.axis) for arm in result.arms for curve in arm.curves})
    paths = []
    for index, arm in enumerate(result.arms):
        start, reach = arm.verdict.recorded_lr_octaves, 2.5 * arm.verdict.tolerances.drift_octaves
        drawn = [
            (sizes.index(words.size_of(curve, result.axis)), curve.optimum_octaves.value - start)
            for curve in arm.curves if curve.optimum_octaves is not None and start is not None
        ]  # fmt: skip
        if len(drawn) < 2:
            continue
        corners = (
            f"{4 + 112 * place / (len(sizes) - 1):.1f} {20 - 18 * min(max(away / reach, -1), 1):.1f}"
            for place, away in sorted(drawn)
        )
        paths.append((index % (len(LIGHT.arms) - 1), "M" + "L".join(corners), words.is_control(arm)))
    return (
        Spark(band=(20 - 18 / 2.5, 36 / 2.5), paths=tuple(paths), label=words.optimum_title(result)) if paths else None
    )
