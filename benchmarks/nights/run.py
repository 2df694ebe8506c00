"""Run simulated nights and count flags."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import product
from math import sqrt
from typing import Any

from benchmarks.coverage import SHAPES
from benchmarks.nights.world import ARMS, Fault, Truth, World
from mutransfer.nights import FigureKind, Judgement, NightData, Sensitivity
from mutransfer.regression import judge_night

SENSITIVITY = Sensitivity()
#: What two runs of one trial differ by, in nats: nothing but rounding on one machine; at worst as much as two seeds.
RERUN_SDS = (1e-6, 3e-4, 2e-3, 5e-3)
NIGHTS_A_SCHEDULE = 20
FIRST = ARMS[0]


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A fault, and the kinds of figures that must say so. `bar`: the share that must be found, None if only told."""

    name: str
    fault: Fault
    kinds: tuple[FigureKind, ...]
    bar: float | None = None


FAULTS = (
    Planted(
        name="one arm's optimum moves by +0.5 octave", fault=Fault(shift={FIRST: 0.5}), kinds=(FigureKind.OPTIMUM,),
        bar=1.0,
    ),
    Planted(
        name="one arm's optimum moves by -0.5 octave", fault=Fault(shift={FIRST: -0.5}), kinds=(FigureKind.OPTIMUM,),
        bar=1.0,
    ),
    Planted(
        name="a multiplier without its 1/r: the optimum falls an octave a doubling, the audit fails",
        fault=Fault(slope={FIRST: -1.0}, failed_audits=(FIRST,)), kinds=(FigureKind.DRIFT, FigureKind.AUDIT), bar=1.0,
    ),
    Planted(
        name="the same without an audit", fault=Fault(slope={FIRST: -1.0}), kinds=(FigureKind.DRIFT,), bar=1.0
    ),
    Planted(
        name="training is 20 % slower", fault=Fault(slowdown=0.2), kinds=(FigureKind.THROUGHPUT,), bar=1.0
    ),
    Planted(name="+0.25 octave", fault=Fault(shift={FIRST: 0.25}), kinds=(FigureKind.OPTIMUM,)),
    Planted(name="+0.15 octave", fault=Fault(shift={FIRST: 0.15}), kinds=(FigureKind.OPTIMUM,)),
    Planted(name="10 % slower", fault=Fault(slowdown=0.1), kinds=(FigureKind.THROUGHPUT,)),
)  # fmt: skip


@dataclass(kw_only=True)
class Unchanged:
    """What unchanged nights gave. `by_kind` counts nights with a flag of that kind."""

    nights: int = 0
    flagged: int = 0
    by_kind: dict[str, int] = field(default_factory=dict)
    by_rerun_sd: dict[str, list[int]] = field(default_factory=dict)  # [nights, flagged]
    examples: list[str] = field(default_factory=list)

    @property
    def upper(self) -> float:
        """The upper end of the share's 95 % interval (Wilson)."""
        return wilson_upper(self.flagged, self.nights)

    def add(self, truth: Truth, judgement: Judgement) -> None:
        """Count one night."""
        self.nights += 1
        self.flagged += judgement.flagged
        seen = self.by_rerun_sd.setdefault(f"{truth.rerun_sd:g}", [0, 0])
        seen[0] += 1
        seen[1] += judgement.flagged
        for kind in {figure.kind.value for figure in judgement.figures if figure.flagged}:
            self.by_kind[kind] = self.by_kind.get(kind, 0) + 1
        self.examples.extend(judgement.flags[: max(0, 5 - len(self.examples))])


@dataclass(kw_only=True)
class Found:
    """How often a planted fault was flagged the first night. `right`: for each reason it must be, in no arm else."""

    name: str
    bar: float | None
    nights: int = 0
    flagged: int = 0
    right: int = 0
    example: str = ""


def truths(schedules: int, *, seed: int) -> Iterator[Truth]:
    """Schedules over all shapes and all kinds of machines, in turn."""
    cases = list(product(SHAPES, RERUN_SDS))
    for index in range(schedules):
        shape, rerun_sd = cases[index % len(cases)]
        yield Truth(shape=shape, rerun_sd=rerun_sd, seed=seed + index)


Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


def unchanged(
    nights: int, *, seed: int = 1, nights_a_schedule: int = NIGHTS_A_SCHEDULE, over: Map = map
) -> Unchanged:  # fmt: skip
    """Count flags over `nights` nights without a change, each schedule with a baseline of its own."""
    found = Unchanged()
    schedules = list(truths(-(-nights // nights_a_schedule), seed=seed))
    for truth, judgements in zip(schedules, over(partial(_schedule, nights=nights_a_schedule), schedules), strict=True):
        for judgement in judgements[: nights - found.nights]:
            found.add(truth, judgement)
    return found


def _schedule(truth: Truth, *, nights: int) -> list[Judgement]:
    world = World(truth)
    baseline, past = world.night(), Past()
    return [past.judge(world.night(), baseline) for _ in range(nights)]


def planted(case: Planted, nights: int, *, seed: int = 100_000, over: Map = map) -> Found:
    """Plant a fault on the first night after each baseline."""
    found = Found(name=case.name, bar=case.bar)
    for judgement in over(partial(_broken, fault=case.fault), truths(nights, seed=seed)):
        found.nights += 1
        found.flagged += judgement.flagged
        found.right += is_right(case, judgement)
        found.example = found.example or next(iter(judgement.flags), "")
    return found


def _broken(truth: Truth, *, fault: Fault) -> Judgement:
    world = World(truth)
    baseline = world.night()
    return Past().judge(world.night(fault), baseline)


def is_right(case: Planted, judgement: Judgement) -> bool:
    """Whether every kind that must be flagged is, and no arm is blamed that nothing was done to."""
    flagged = [figure for figure in judgement.figures if figure.flagged]
    blamed = set(ARMS) if case.fault.slowdown else {FIRST}
    return set(case.kinds) <= {f.kind for f in flagged} and all(f.arm in blamed | {None} for f in flagged)


class Past:
    """The memory that a schedule has of its unchanged nights' throughput."""

    def __init__(self) -> None:
        self._speeds: dict[str, list[float]] = {}

    def judge(self, night: NightData, baseline: NightData) -> Judgement:
        """Judge a night, and remember it unless it is flagged."""
        judgement = judge_night(night, baseline, sensitivity=SENSITIVITY, past=self._speeds)
        for figure in () if judgement.flagged else judgement.figures:
            if figure.kind is FigureKind.THROUGHPUT and figure.arm and figure.change is not None:
                self._speeds.setdefault(figure.arm, []).append(figure.change.value)
        return judgement


def wilson_upper(hits: int, total: int) -> float:
    """Upper bound of the 95 % Wilson interval of a share."""
    z, share = 1.959964, hits / total
    centre, reach = share + z * z / (2 * total), z * sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return (centre + reach) / (1 + z * z / total)


def document(flags: Unchanged, faults: Sequence[Found]) -> dict[str, Any]:
    """Everything that was counted, as JSON."""
    return {
        "sensitivity": SENSITIVITY.model_dump(mode="json"),
        "unchanged": asdict(flags) | {"upper": flags.upper},
        "planted": [asdict(found) for found in faults],
    }
