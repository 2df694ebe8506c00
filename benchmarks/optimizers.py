"""Step times of our optimizers beside installable peers, in one run: `python -m benchmarks.optimizers`.

Parameters are the matrices of a GPT: width 256 with 4 layers and width 512 with 1 (3.1 million parameters each), and
width 128 where a peer takes too long at more. One thread. The contestants of a contest take turns step by step, so
that a disturbance meets all of them. Times are the thread's CPU time: on an idle machine that is what a clock shows,
on a shared one it leaves out the others' turns. With `--device cuda` the models are wider, and times are the clock's
until a step's kernels have ended. The first step, which makes states, is told apart; mean, median and worst are over
the rest. A contestant that has used up its cap stops there: `over cap`, with the steps it made.

Exits 1 when a goal is missed.
"""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
import json
from pathlib import Path
import random
import statistics
import sys
import time
from typing import Any
import warnings

import torch
from torch import Tensor

from benchmarks.contests import Contest, Contestant, Step, contests, gpt_matrices
from benchmarks.machine import machine_with

#: (width, layers) of the models.
SIZES = ((128, 4), (256, 4), (512, 1))
GPU_SIZES = ((1024, 4), (2048, 2))
#: Gradients that come round again, so that preconditioners see more than one.
GRADIENTS = 4
#: Steps below which a mean says nothing: twice round the periods of curvature and preconditioners.
ENOUGH = 20


@dataclass(kw_only=True)
class Row:
    """The times of one contestant, in milliseconds."""

    contest: str
    width: int
    name: str
    ours: bool
    judged: bool = True
    first_ms: float = 0.0
    steps_ms: list[float] = field(default_factory=list)
    over_cap: bool = False

    @property
    def spent_ms(self) -> float:
        """What it has used of its cap."""
        return self.first_ms + sum(self.steps_ms)

    @property
    def mean_ms(self) -> float:
        """Mean over the steps after the first."""
        return statistics.fmean(self.steps_ms)

    @property
    def comparable(self) -> bool:
        """Whether it made all its steps, or enough before its cap."""
        return bool(self.steps_ms) and (not self.over_cap or len(self.steps_ms) >= ENOUGH)

    def numbers(self) -> dict[str, Any]:
        """What is printed and saved."""
        known = self.steps_ms or [float("nan")]
        return {
            "contest": self.contest, "width": self.width, "name": self.name, "first_ms": self.first_ms,
            "median_ms": statistics.median(known), "mean_ms": statistics.fmean(known), "worst_ms": max(known),
            "steps": len(self.steps_ms), "over_cap": self.over_cap,
        }  # fmt: skip

    def __str__(self) -> str:
        n = self.numbers()
        times = "".join(f"{n[key]:10.1f}" for key in ("median_ms", "mean_ms", "worst_ms", "first_ms"))
        return f"{self.contest:9} {self.width:5d}  {self.name:26}{times}{n['steps']:7d}{'  over cap' * self.over_cap}"


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A bound on a ratio."""

    what: str
    width: int
    ratio: float
    bound: float

    @property
    def met(self) -> bool:
        """Whether the ratio is within the bound."""
        return self.ratio <= self.bound

    def __str__(self) -> str:
        judgement = "met" if self.met else "MISSED"
        return f"{self.what}, width {self.width}: {self.ratio:.2f} (at most {self.bound:g}) {judgement}"


@dataclass(kw_only=True)
class Runner:
    """A contestant at work."""

    row: Row
    parameters: list[Tensor]
    step: Step

    def take(self, gradients: Sequence[Tensor], *, first: bool) -> None:
        """One timed step on copies of `gradients`, as some peers write into theirs."""
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        taken_ms = 1e3 * _seconds(self.step, gradients[0].device)
        if first:
            self.row.first_ms = taken_ms
        else:
            self.row.steps_ms.append(taken_ms)


def _seconds(step: Step, device: torch.device) -> float:
    """How long a step takes: the thread's CPU time, or on a GPU the clock's until its kernels have ended."""
    if device.type != "cuda":
        started = time.thread_time()
        step()
        return time.thread_time() - started
    torch.cuda.synchronize(device)
    started = time.perf_counter()
    step()
    torch.cuda.synchronize(device)
    return time.perf_counter() - started


def measure(contest: Contest, width: int, layers: int, *, steps: int, cap_s: float, device: str = "cpu") -> list[Row]:
    """All rows of one contest at one width."""
    shapes = gpt_matrices(width, layers)
    able = [c for c in contest.contestants if c.ours or _runs(c, width, gpt_matrices(16, 1), device)]
    runners = [_runner(contest, c, width, shapes, device) for c in able]
    pool = [_normal(shapes, seed, device) for seed in range(1, GRADIENTS + 1)]
    for index in range(steps + 1):
        # Another order every step: who comes after whom decides what is left in the caches.
        for runner in random.Random(index).sample(runners, len(runners)):
            if runner.row.over_cap:
                continue
            runner.take(pool[index % GRADIENTS], first=index == 0)
            runner.row.over_cap = runner.row.spent_ms > 1e3 * cap_s and index < steps
    return [runner.row for runner in runners]


def _runs(contestant: Contestant, width: int, shapes: Sequence[tuple[int, int]], device: str) -> bool:
    """Whether a peer is installed and takes a step with this torch: some reach into parts of it that move."""
    parameters = [0.02 * p for p in _normal(shapes, 0, device)]
    for parameter, gradient in zip(parameters, _normal(shapes, 1, device), strict=True):
        parameter.grad = gradient
    try:
        contestant.build(parameters)()
    except (ImportError, AttributeError) as error:
        print(f"left out: {contestant.name}, width {width} ({error})")
        return False
    return True


def _runner(
    contest: Contest, contestant: Contestant, width: int, shapes: Sequence[tuple[int, int]], device: str
) -> Runner:
    parameters = [0.02 * p for p in _normal(shapes, 0, device)]
    row = Row(contest=contest.name, width=width, name=contestant.name, ours=contestant.ours, judged=contestant.judged)
    return Runner(row=row, parameters=parameters, step=contestant.build(parameters))


def _normal(shapes: Iterable[tuple[int, int]], seed: int, device: str) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, device="cpu").to(device) for shape in shapes]


def goals(contest: Contest, rows: Sequence[Row]) -> list[Goal]:
    """What the contest asks of ours. A peer stopped at its cap counts with the steps it made, if those are enough."""
    (ours,) = [row for row in rows if row.ours]
    if not ours.steps_ms:
        return [Goal(what=f"{contest.name}: a step within the cap", width=ours.width, ratio=float("inf"), bound=1.0)]
    found, peers = [], [row for row in rows if not row.ours and row.judged and row.comparable]
    if peers:
        best = min(peers, key=lambda row: row.mean_ms)
        what = f"{contest.name}: mean of ours / {best.name}"
        found.append(Goal(what=what, width=ours.width, ratio=ours.mean_ms / best.mean_ms, bound=contest.share))
    if contest.worst_over_median is not None:
        ratio = max(ours.steps_ms) / statistics.median(ours.steps_ms)
        what = f"{contest.name}: worst step of ours / its median"
        found.append(Goal(what=what, width=ours.width, ratio=ratio, bound=contest.worst_over_median))
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.optimizers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    parser.add_argument("--steps", type=int, default=40, help="steps after the first (default 40)")
    parser.add_argument("--cap-s", type=float, default=60.0, help="CPU seconds a contestant may use (default 60)")
    parser.add_argument("--only", nargs="*", default=[], metavar="CONTEST", help="such as ADOPT SOAP (default all)")
    parser.add_argument("--width", type=int, choices=[width for width, _ in SIZES + GPU_SIZES], help="one width only")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="where to measure (default cpu)")
    return parser


def _chosen(options: argparse.Namespace) -> list[tuple[Contest, int, int]]:
    """(contest, width, layers) of all that is to be measured; the smallest width is for those that ask for it."""
    chosen = []
    on_gpu = options.device == "cuda"
    for width, layers in GPU_SIZES if on_gpu else SIZES:
        for contest in contests():
            wanted = not options.only or contest.name in options.only
            fits = contest.widths != (128,) if on_gpu else width in (contest.widths or (256, 512))
            if wanted and fits and options.width in (None, width):
                chosen.append((contest, width, layers))
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, judge."""
    options = _parser().parse_args(arguments)
    warnings.filterwarnings("ignore")  # of the peers
    torch.set_num_threads(1)
    started = (time.monotonic(), time.process_time())
    print(machine_with(options.device))
    columns = "".join(f"{name:>10}" for name in ("median", "mean", "worst", "first"))
    print(f"{'contest':9} {'width':>5}  {'milliseconds a step':26}{columns}{'steps':>7}")
    rows, judged = list[Row](), list[Goal]()
    for contest, width, layers in _chosen(options):
        found = measure(contest, width, layers, steps=options.steps, cap_s=options.cap_s, device=options.device)
        print(*found, sep="\n", flush=True)
        rows += found
        judged += goals(contest, found)
    print(*judged, sep="\n")
    wall, cpu = time.monotonic() - started[0], time.process_time() - started[1]
    print(f"{wall:.0f} s by the clock, {cpu:.0f} s of CPU time")
    if options.json:
        _save(options.json, rows, judged, machine_with(options.device))
    return 0 if all(goal.met for goal in judged) else 1


def _save(path: Path, rows: Sequence[Row], judged: Sequence[Goal], machine: str) -> None:
    figures = [row.numbers() for row in rows]
    document = {"machine": machine, "rows": figures, "goals": [{**asdict(goal), "met": goal.met} for goal in judged]}
    path.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
