"""A study's progress in the terminal: a bar a phase, what runs now; plain lines where there is no terminal."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
import time
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from service.reports import numbers

if TYPE_CHECKING:
    from service.studies.schemas import EventRead

PROGRESS = "progress"  # the kind of event that carries counts and running trials
LINE_SECONDS = 15.0  # between plain lines while nothing but counts changes
RUNNING_SHOWN = 4


@dataclass(frozen=True, kw_only=True)
class PhaseCount:
    """Trials of one phase: those asked for since it began, and those of them that are done."""

    name: str
    done: int
    planned: int
    over: bool


@dataclass
class StudyProgress:
    """What the events of a study add up to."""

    state: str = "queued"
    done: int = 0
    planned: int = 0
    failed: int = 0
    expected: int | None = None
    running: list[Mapping[str, Any]] = field(default_factory=list)
    _phases: dict[str, tuple[int, int]] = field(default_factory=dict)  # (done, planned) when each phase began
    _ended: dict[str, tuple[int, int]] = field(default_factory=dict)

    def update(self, event: "EventRead") -> None:
        """Take in one event."""
        if event.kind == PROGRESS:
            self._count(event.payload)
        elif event.kind == "phase_started":
            self._begin(str(event.payload["phase"]))
        elif event.kind == "finished":
            self.state, self.running = event.payload["state"], []

    def _count(self, payload: Mapping[str, Any]) -> None:
        if (phase := payload.get("phase")) is not None:
            self._begin(str(phase))
        self.state = payload["state"]
        self.done, self.planned = payload["trials_done"], payload["trials_planned"]
        self.failed, self.expected = payload["trials_failed"], payload["trials_expected"]
        self.running = payload["running"]

    def _begin(self, phase: str) -> None:
        if phase in self._phases:
            return
        if self._phases:
            self._ended[next(reversed(self._phases))] = (self.done, self.planned)
        # Trials that earlier drivers or studies had done before anyone looked belong to the first phase seen.
        self._phases[phase] = (self.done, self.planned) if self._phases else (0, 0)

    def phases(self) -> Iterator[PhaseCount]:
        """The phases so far, in order."""
        for name, (done, planned) in self._phases.items():
            end_done, end_planned = self._ended.get(name, (self.done, self.planned))
            over = name in self._ended or self.state in ("completed", "failed", "cancelled")
            yield PhaseCount(name=name, done=end_done - done, planned=end_planned - planned, over=over)

    def line(self) -> str:
        """All of it in one line."""
        phase = next(reversed(self._phases), "waiting for a driver")
        expected = f", about {self.expected} expected" if self.expected else ""
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{self.state} · {phase} · {self.done} of {self.planned} trials{expected}{failed}"


def describe_trial(trial: Mapping[str, Any]) -> str:
    """`adamw-mup 64 · 2⁻⁴ · seed 1 · step 120 of 300 · 2.310 nats`."""
    loss, steps = trial.get("train_loss_nats"), trial.get("steps")
    parts = [
        f"{trial['arm']} {trial['axis_value']}",
        numbers.power_of_two(trial["lr_octaves"]),
        f"seed {trial['seed']}",
        f"step {trial['step']} of {steps}" if steps else "starting",
    ]
    return " · ".join(parts + ([f"{numbers.loss(loss)} nats"] if loss is not None else []))


def follow(events: Iterable["EventRead"], console: Console) -> StudyProgress:
    """Show a study's progress until its events end; returns the last of it."""
    return _follow_live(events, console) if console.is_terminal else _follow_plain(events, console)


def _follow_plain(events: Iterable["EventRead"], console: Console) -> StudyProgress:
    progress, last, said_at = StudyProgress(), "", float("-inf")
    for event in events:
        progress.update(event)
        now = time.monotonic()
        key = progress.line().partition(" of ")[0].rpartition(" · ")[0]
        if key != last or (event.kind == PROGRESS and now - said_at > LINE_SECONDS):
            console.print(progress.line(), markup=False)
            last, said_at = key, now
    return progress


def _follow_live(events: Iterable["EventRead"], console: Console) -> StudyProgress:
    view = LiveView()
    with Live(view.render(), console=console, refresh_per_second=4) as live:
        for event in events:
            view.progress.update(event)
            live.update(view.render())
    return view.progress


class LiveView:
    """A bar a phase, then the trials that run now."""

    def __init__(self) -> None:
        self.progress = StudyProgress()
        self._bars = Progress(
            TextColumn("{task.description:<10}"), BarColumn(bar_width=36), MofNCompleteColumn(), TimeElapsedColumn()
        )
        self._tasks: dict[str, TaskID] = {}

    def render(self) -> Group:
        """The view now."""
        for phase in self.progress.phases():
            if phase.name not in self._tasks:
                self._tasks[phase.name] = self._bars.add_task(phase.name, total=None)
            task = self._tasks[phase.name]
            total = max(phase.planned, 1) if phase.over else phase.planned or None
            self._bars.update(task, total=total, completed=total if phase.over else phase.done)
        shown = self.progress.running[:RUNNING_SHOWN]
        more = len(self.progress.running) - len(shown)
        lines = [describe_trial(trial) for trial in shown] + ([f"and {more} more"] if more > 0 else [])
        return Group(self._bars, Text("\n".join([self.progress.line(), *lines]), style="dim"))
