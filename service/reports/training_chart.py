"""Training curves of chosen trials: loss against steps, one line a width or one line a learning rate."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10

from mutransfer.trial import HistoryPoint
from service.reports import numbers
from service.reports.chart import Chart, Json, View, axis, base_layout, legend
from service.reports.palette import Theme, size_colours, viridis
from service.reports.table import Column, Table

KEY = "training"
HEIGHT = 380
_NOTE = (
    "Training loss, mean since the previous point, of one seed. A line that stops early diverged there; an open circle "
    "is a trial that runs now, and grows into a line while you watch."
)


@dataclass(frozen=True, kw_only=True)
class TrainingLine:
    """One trial's history: `size` on the study's axis, learning rate in octaves, seed."""

    arm: str
    size: int
    lr_octaves: float
    seed: int
    dashed: bool
    history: tuple[HistoryPoint, ...]

    @property
    def last(self) -> float | None:
        """The last finite training loss, in nats per token."""
        return next((p.train_loss_nats for p in reversed(self.history) if p.train_loss_nats is not None), None)


@dataclass(frozen=True, kw_only=True)
class LivePoint:
    """How far a trial is that runs now. `key` tells the points of one trial from another's."""

    key: str
    size: int
    lr_octaves: float
    seed: int
    step: int
    train_loss_nats: float


def training_chart(
    lines: Sequence[TrainingLine], theme: Theme, *, axis_name: str, by_rate: bool, live: Sequence[LivePoint] = ()
) -> Chart:
    """The chosen trials; coloured by width, or by learning rate when they share one width (`by_rate`)."""
    lines = [line for line in lines if line.history]
    table = _table(lines, axis_name)
    title = _title(lines, axis_name, by_rate=by_rate)
    if not lines and not live:
        empty = "Appears when a trial has finished: its training loss, step by step."
        return Chart(key=KEY, title=title, note=_NOTE, table=table, empty=empty)
    rates = sorted({line.lr_octaves for line in lines})
    sizes = size_colours(sorted({line.size for line in lines}), theme)
    data = []
    for line in lines:
        place = rates.index(line.lr_octaves) / max(len(rates) - 1, 1)
        colour = viridis(theme.widths[0] + (theme.widths[1] - theme.widths[0]) * place) if by_rate else sizes[line.size]
        data.append(_trace(line, colour, axis_name, by_rate=by_rate))
    data += [_live(point, theme, axis_name) for point in live]
    return Chart(
        key=KEY, title=title, note=_NOTE, table=table, data=data, views=_views(lines, live),
        layout=_layout(lines, live, theme, narrow=False), narrow=_layout(lines, live, theme, narrow=True),
    )  # fmt: skip


def _live(point: LivePoint, theme: Theme, axis_name: str) -> Json:
    """One point; the page keeps those that it has seen, and joins them."""
    head = f"{axis_name} {point.size}, seed {point.seed}, running<br>LR {numbers.rate(point.lr_octaves)}"
    return {
        "type": "scatter", "mode": "lines+markers", "showlegend": False, "meta": {"live": point.key},
        "x": [point.step], "y": [point.train_loss_nats], "line": {"color": theme.muted, "width": 1},
        "marker": {"symbol": "circle-open", "size": 7, "color": theme.ink, "line": {"width": 1.5}},
        "hovertemplate": f"{head}<br>step %{{x}}: %{{y:.3f}} nats<extra></extra>",
    }  # fmt: skip


def _views(lines: Sequence[TrainingLine], live: Sequence[LivePoint]) -> tuple[View, ...]:
    """Linear steps, or their logarithm, which shows the beginning."""
    steps = [point.step for line in lines for point in line.history] + [point.step for point in live]
    first, last = max(min(steps, default=1), 1), max(*steps, 2)
    logs = [log10(first) - 0.05, log10(last) + 0.05]
    return (
        View(label="Linear steps", relayout={"xaxis.type": "linear", "xaxis.range": [0, last * 1.03]}),
        View(label="Log steps", relayout={"xaxis.type": "log", "xaxis.range": logs}),
    )


def _title(lines: Sequence[TrainingLine], axis_name: str, *, by_rate: bool) -> str:
    ended = [(line.last, line) for line in lines if line.last is not None]
    if not ended:
        return "Training curves"
    low, best = min(ended, key=lambda pair: (pair[0], pair[1].size))
    if by_rate:
        return (
            f"{best.arm} at {axis_name} {best.size} trains best at {numbers.rate(best.lr_octaves)}: "
            f"{numbers.loss(low)} nats at the end"
        )
    return f"{best.arm}: training loss ends lowest at {axis_name} {best.size}, {numbers.loss(low)} nats"


def _trace(line: TrainingLine, colour: str, axis_name: str, *, by_rate: bool) -> Json:
    name = numbers.power_of_two(line.lr_octaves) if by_rate else f"{axis_name} {line.size}"
    head = f"{line.arm}, {axis_name} {line.size}, seed {line.seed}<br>LR {numbers.rate(line.lr_octaves)}"
    return {
        "type": "scatter", "mode": "lines", "name": name,
        "x": [point.step for point in line.history], "y": [point.train_loss_nats for point in line.history],
        "line": {"color": colour, "width": 2, "dash": "dash" if line.dashed else "solid"},
        "hovertemplate": f"{head}<br>step %{{x}}: %{{y:.3f}} nats<extra></extra>",
    }  # fmt: skip


def _layout(lines: Sequence[TrainingLine], live: Sequence[LivePoint], theme: Theme, *, narrow: bool) -> Json:
    finite = [p.train_loss_nats for line in lines for p in line.history if p.train_loss_nats is not None]
    starts = [p.train_loss_nats for line in lines for p in line.history[:1] if p.train_loss_nats is not None]
    now = [point.train_loss_nats for point in live]
    top = max([*starts, *now], default=1.0)
    low = min([*finite, *now], default=0.0)
    return base_layout(
        theme, height=340 if narrow else HEIGHT, showlegend=True, legend=legend(theme, y=1.02),
        margin={"l": 56 if narrow else 72, "r": 12, "t": 64, "b": 56},
        xaxis=axis(theme, "step", rangemode="tozero", nticks=6 if narrow else 12, showgrid=False),
        yaxis=axis(
            theme, "training loss (nats per token)", tickformat=".2f",
            range=[low - 0.06 * (top - low) - 0.01, top + 0.06 * (top - low) + 0.01],
        ),
    )  # fmt: skip


def _table(lines: Sequence[TrainingLine], axis_name: str) -> Table:
    columns = (
        Column(key="arm", label="Arm"),
        Column(key=axis_name, label=axis_name.capitalize(), show=numbers.count),
        Column(key="lr_octaves", label="LR", show=numbers.power_of_two),
        Column(key="seed", label="Seed", show=numbers.count),
        Column(key="step", label="Step", show=numbers.count),
        Column(key="train_loss_nats", label="Training loss (nats)", show=numbers.loss),
    )
    rows = tuple(
        (line.arm, line.size, line.lr_octaves, line.seed, point.step, point.train_loss_nats)
        for line in lines for point in line.history
    )  # fmt: skip
    return Table(caption="Training loss of the chosen trials", columns=columns, rows=rows)
