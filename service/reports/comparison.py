"""Arms of any studies side by side: who they are, whether their losses may be compared, what one gains over another.

Pure: what is compared comes in as `Contender`s, whoever read them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mutransfer.facts import StudyFacts
from mutransfer.result import ArmResult, Curve, Interval
from mutransfer.spec import StudySpec
from mutransfer.speedup import RunCurve, Speedup, refused, run_curve, speedups
from mutransfer.trial import TrialResult
from service.reports import numbers, words
from service.reports.table import Cell, Column, Table

#: More arms than this have neither colours nor markers left to tell them apart.
MOST_ARMS = 8


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished trial at an arm's best measured rate."""

    size: int
    lr_octaves: float
    seed: int
    result: TrialResult


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One arm of one study. `label` is unique on the page; `runs` are those at the best measured rate of each size."""

    index: int
    key: str
    label: str
    study_id: str
    study_name: str
    state: str
    spec: StudySpec
    facts: StudyFacts | None
    arm: ArmResult
    runs: tuple[Run, ...]

    @property
    def axis(self) -> str:
        """What grows along its study: `width` or `depth`."""
        return self.spec.axis_name

    def curve(self, size: int) -> Curve | None:
        """Its curve at one size."""
        return words.curve_at(self.arm, size, self.axis)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes that have a finished run at a best rate, rising."""
        return tuple(sorted({run.size for run in self.runs}))

    def at(self, size: int) -> tuple[Run, ...]:
        """Its runs at one size, by seed."""
        return tuple(run for run in self.runs if run.size == size)

    def training(self, size: int) -> Mapping[int, RunCurve]:
        """Training curves at one size, by seed; runs that diverged on the way are left out."""
        step = self.spec.train.batch * self.spec.model.context
        made = {run.seed: _curve(run.result, step) for run in self.at(size)}
        return {seed: curve for seed, curve in made.items() if curve is not None}


def _curve(result: TrialResult, tokens_per_step: int) -> RunCurve | None:
    return run_curve(
        result.history, tokens_per_step=tokens_per_step, tokens=result.tokens, device_seconds=result.device_seconds,
        device=result.device,
    )  # fmt: skip


def best_rate(curve: Curve) -> float | None:
    """The measured rate of lowest loss at which no seed diverged; the lower one of two equals."""
    finite = [(p.loss_nats, p.lr_octaves) for p in curve.points if p.loss_nats is not None and not p.diverged]
    return min(finite)[1] if finite else None


def best_loss(curve: Curve | None) -> Interval | None:
    """The lowest loss of a curve: of the fitted minimum, else of the best measured rate with its standard error."""
    if curve is None:
        return None
    if curve.loss_nats is not None:
        return curve.loss_nats
    rate = best_rate(curve)
    point = next((p for p in curve.points if p.lr_octaves == rate), None)
    if point is None or point.loss_nats is None:
        return None
    half = None if point.stderr is None else 1.96 * point.stderr
    return Interval(
        value=point.loss_nats, low=None if half is None else point.loss_nats - half,
        high=None if half is None else point.loss_nats + half,
    )  # fmt: skip


# --- may losses be compared? -----------------------------------------------------------------------------------------

_Read = Callable[[Contender], object]


def _horizon(contender: Contender) -> str:
    return dict(words.conditions(contender.spec))["Horizon"]


#: What the loss itself is measured on: other text, other units. (name, value)
_LOSS: tuple[tuple[str, _Read], ...] = (
    ("data", lambda c: c.facts.environment.data_fingerprint if c.facts else c.spec.data.source),
    ("tokenizer", lambda c: c.spec.data.tokenizer),
    ("context", lambda c: f"{c.spec.model.context} tokens"),
)
#: What a loss is reached with.
_CONDITIONS: tuple[tuple[str, _Read], ...] = (
    ("held-out set", lambda c: f"{c.spec.eval.tokens} tokens"),
    ("horizon", _horizon),
    ("schedule", lambda c: f"{c.spec.train.schedule}, warm-up {c.spec.train.warmup:.0%}"),
    ("model", lambda c: c.spec.model.family),
    ("depth", lambda c: c.spec.model.depth if c.axis == "width" else "the axis"),
    ("weight decay", lambda c: f"{c.spec.train.weight_decay:g}"),
    ("clipping", lambda c: c.spec.train.clip),
    ("precision", lambda c: c.spec.train.precision),
    ("device", lambda c: ", ".join(sorted({run.result.device for run in c.runs})) or None),
)


def comparable(one: Contender, other: Contender) -> str:
    """Why the training losses of two arms cannot be compared; empty where they can."""
    differing = [name for name, read in _LOSS if read(one) != read(other)]
    if one.axis != other.axis:
        differing.append("axis")
    return f"{numbers.listed(differing)} differ" if differing else ""


def warnings(contenders: Sequence[Contender]) -> tuple[str, ...]:
    """What stands against comparing these arms, as sentences."""
    said = []
    if len({contender.axis for contender in contenders}) > 1:
        said.append("Some arms grow in width and others in depth: their sizes are not the same thing.")
    for name, read in _LOSS:
        if groups := _differing(contenders, read):
            shown = groups if name != "data" else _differing(contenders, lambda c: c.spec.data.source)
            told = f" ({shown})" if shown else ": the same source held other text"
            said.append(f"The {name} differs{told}: losses are not comparable, and no speed-up is given across it.")
    for name, read in _CONDITIONS:
        if groups := _differing(contenders, read):
            said.append(f"The {name} differs ({groups}): differences in loss are not the optimizer's alone.")
    return tuple(said)


def _differing(contenders: Sequence[Contender], read: _Read) -> str:
    """`a: x, b: y` where the arms disagree on a value; empty where they agree. Unknown values agree with all."""
    found: dict[str, list[str]] = {}
    for contender in contenders:
        value = read(contender)
        if value is not None:
            found.setdefault(str(value), []).append(contender.label)
    if len(found) < 2:
        return ""
    return "; ".join(f"{numbers.listed(labels)}: {value}" for value, labels in found.items())


# --- speed-up --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What a contender gains over the baseline at one size."""

    contender: Contender
    size: int
    speedup: Speedup


def gains(contenders: Sequence[Contender], baseline: Contender) -> tuple[Gain, ...]:
    """The speed-up of every other arm at every size that both have, in page order."""
    return tuple(
        Gain(contender=contender, size=size, speedup=found)
        for contender in contenders
        if contender is not baseline
        for size, found in _gains(contender, baseline).items()
    )


def _gains(contender: Contender, baseline: Contender) -> Mapping[int, Speedup]:
    shared = [size for size in contender.sizes if size in baseline.sizes]
    if why := comparable(contender, baseline):
        return dict.fromkeys(shared, refused(why))
    return speedups({size: (baseline.training(size), contender.training(size)) for size in shared})


def speedup_table(found: Sequence[Gain], baseline: Contender) -> Table:
    """One row a contender and size."""
    columns = (
        Column(key="arm", label="Arm"),
        Column(key=baseline.axis, label=baseline.axis.capitalize(), show=numbers.count),
        Column(key="loss_nats", label="Equal loss (nats)", show=numbers.loss),
        Column(key="speedup_tokens", label="In tokens", show=times),
        Column(key="speedup_tokens_low", label="95 % low", show=times),
        Column(key="speedup_tokens_high", label="95 % high", show=times),
        Column(key="speedup_device_seconds", label="In device-seconds", show=times),
        Column(key="speedup_device_seconds_low", label="95 % low", show=times),
        Column(key="speedup_device_seconds_high", label="95 % high", show=times),
        Column(key="seeds", label="Seeds", show=numbers.count),
        Column(key="note", label="Note"),
    )
    rows = tuple(_gain_row(gain) for gain in found)
    return Table(caption=f"Speed-up over {baseline.label} to equal training loss", columns=columns, rows=rows)


def times(value: float) -> str:
    """`1.35×`."""
    return f"{numbers.significant(value)}×"


def _gain_row(gain: Gain) -> tuple[Cell, ...]:
    got = gain.speedup
    note = got.refusal or ("" if got.candidate_ends_lower else "ends at a higher loss")
    if got.tokens is not None and got.tokens.low is None:
        note = f"{note}; one seed: no interval".removeprefix("; ")
    return (
        gain.contender.label, gain.size, got.loss_nats, *_three(got.tokens), *_three(got.device_seconds), got.seeds,
        note,
    )  # fmt: skip


def _three(value: Interval | None) -> tuple[float | None, float | None, float | None]:
    return (None, None, None) if value is None else (value.value, value.low, value.high)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Everything that the page compares. `size` is the one whose training curves are shown, None before any run."""

    contenders: tuple[Contender, ...]
    baseline: Contender
    gains: tuple[Gain, ...]
    size: int | None
    warnings: tuple[str, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """All sizes that any arm has a run at."""
        return tuple(sorted({size for contender in self.contenders for size in contender.sizes}))


def compare(contenders: Sequence[Contender], *, baseline: str | None, size: int | None) -> Comparison:
    """Compare at least one arm. `baseline` is a key; by default an AdamW under μP, else any AdamW, else the first."""
    chosen = next((c for c in contenders if c.key == baseline), None) or _natural_baseline(contenders)
    sizes = sorted({s for contender in contenders for s in contender.sizes})
    shared = [s for s in sizes if all(s in contender.sizes for contender in contenders)]
    default = max(shared or sizes, default=None)
    return Comparison(
        contenders=tuple(contenders), baseline=chosen, gains=gains(contenders, chosen),
        size=size if size in sizes else default, warnings=warnings(contenders),
    )  # fmt: skip


def _natural_baseline(contenders: Sequence[Contender]) -> Contender:
    def rank(contender: Contender) -> tuple[bool, bool, int]:
        is_adamw = contender.arm.optimizer == "adamw"
        return not is_adamw, words.is_control(contender.arm), contender.index

    return min(contenders, key=rank)


def headline(comparison: Comparison) -> str:
    """The finding in a sentence: the largest gain at the largest size, or that it is not settled."""
    known = [(gain.size, gain.speedup.tokens, gain) for gain in comparison.gains if gain.speedup.tokens is not None]
    if not known:
        return "Side by side"
    largest = max(size for size, _, _ in known)
    value, gain = max(((v, g) for size, v, g in known if size == largest), key=lambda pair: pair[0].value)
    name, base = gain.contender.label, comparison.baseline.label
    at = f"at {comparison.baseline.axis} {largest}"
    if value.low is None or value.high is None or value.low <= 1 <= value.high:
        return f"{name} against {base} {at}: {times(value.value)} in tokens, not settled"
    factor, word = (value.value, "fewer") if value.value > 1 else (1 / value.value, "more")
    return f"{name} takes {times(factor)} {word} tokens than {base} to equal loss {at}"


def evidence(comparison: Comparison) -> str:
    """Every arm's gain at the largest size with its interval."""
    largest = max((gain.size for gain in comparison.gains if gain.speedup.tokens is not None), default=None)
    said = [f"{g.contender.label} {gain_words(g)}" for g in comparison.gains if g.size == largest and gain_words(g)]
    if not said:
        return "No speed-up can be given yet; what is known of these arms stands below."
    return f"Speed-up over {comparison.baseline.label} at {comparison.baseline.axis} {largest}: {'; '.join(said)}."


def gain_words(gain: Gain) -> str:
    """`1.35× [1.20, 1.52] in tokens, 0.910× [0.800, 1.04] in device-seconds`."""
    values = ((gain.speedup.tokens, "tokens"), (gain.speedup.device_seconds, "device-seconds"))
    return ", ".join(f"{times(value.value)}{_span(value)} in {unit}" for value, unit in values if value is not None)


def _span(value: Interval) -> str:
    if value.low is None or value.high is None:
        return ""
    return f" [{numbers.significant(value.low)}, {numbers.significant(value.high)}]"
