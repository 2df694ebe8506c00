"""The charts of a comparison: optimal LR and best loss against width, training curves to equal loss, speed-up."""

from collections.abc import Iterable, Mapping, Sequence
from math import log2

from mutransfer.result import CurveStatus, Interval
from mutransfer.speedup import RunCurve
from service.reports import numbers
from service.reports.chart import Chart, Json, axis, base_layout, legend, legend_rows, octave_ticks, size_axis
from service.reports.comparison import Comparison, Contender, Gain, best_loss, gain_words, speedup_table, times
from service.reports.palette import Theme, arm_style
from service.reports.table import Cell, Column, Table

OPTIMUM, LOSS, TRAINING, SPEEDUP = "compare-optimum", "compare-loss", "compare-training", "compare-speedup"
_DODGE = 0.04  # octaves of width between neighbouring arms, so that their interval bars stay apart


def comparison_charts(comparison: Comparison, theme: Theme) -> tuple[Chart, ...]:
    """All charts in page order. Each says when it will appear while it has nothing to show."""
    return (
        speedup_chart(comparison, theme), training_chart(comparison, theme), optimum_chart(comparison, theme),
        loss_chart(comparison, theme),
    )  # fmt: skip


def _x(size: int, contender: Contender, count: int) -> float:
    return log2(size) + _DODGE * (contender.index - (count - 1) / 2)


def _series(contender: Contender, theme: Theme, *, name: str = "", hollow: bool = False) -> Json:
    style = arm_style(contender.index, contender.arm.parametrization, theme)
    return {
        "type": "scatter", "mode": "lines+markers", "name": name or contender.label, "legendgroup": contender.key,
        "line": {"color": style.colour, "width": 2, "dash": "dot" if hollow else style.dash},
        "marker": {
            "symbol": f"{style.marker}-open" if hollow else style.marker, "size": 9, "color": style.colour,
            "line": {"width": 1.5 if hollow else 1, "color": style.colour if hollow else theme.paper},
        },
    }  # fmt: skip


def _bars(values: Sequence[Interval], colour: str) -> Json:
    return {
        "type": "data", "symmetric": False, "color": colour, "thickness": 1.5, "width": 5,
        "array": [0 if v.high is None else v.high - v.value for v in values],
        "arrayminus": [0 if v.low is None else v.value - v.low for v in values],
    }  # fmt: skip


def _against_size(
    comparison: Comparison, theme: Theme, drawn: Sequence[tuple[Contender, Sequence[tuple[int, Interval, str]]]]
) -> list[Json]:
    """One line with interval bars a contender, from (size, value, hover) triples."""
    traces = []
    for contender, points in drawn:
        if points:
            series = _series(contender, theme)
            traces.append({
                **series, "x": [_x(size, contender, len(comparison.contenders)) for size, _, _ in points],
                "y": [value.value for _, value, _ in points],
                "error_y": _bars([value for _, value, _ in points], series["line"]["color"]),
                "text": [text for _, _, text in points], "hovertemplate": "%{text}<extra></extra>",
            })  # fmt: skip
    return traces


def _layouts(comparison: Comparison, theme: Theme, y_axis: Json, sizes: Sequence[int], names: Sequence[str]) -> Json:
    """`layout` and `narrow` of a chart against size."""
    made = {}
    for kind, height in (("layout", 360), ("narrow", 320)):
        rows = legend_rows(names) if kind == "narrow" else 1 + len(names) // 5
        made[kind] = base_layout(
            theme, height=height + 20 * rows, showlegend=True, legend=legend(theme, y=1.02),
            margin={"l": 56 if kind == "narrow" else 72, "r": 12, "t": 24 + 22 * rows, "b": 56},
            xaxis=size_axis(theme, comparison.baseline.axis, sizes), yaxis=y_axis,
        )  # fmt: skip
    return made


def _labels(comparison: Comparison) -> list[str]:
    return [contender.label for contender in comparison.contenders]


# --- optimum ---------------------------------------------------------------------------------------------------------


def optimum_chart(comparison: Comparison, theme: Theme) -> Chart:
    """Optimal learning rate of every arm against size."""
    drawn = [
        (c, [
            (size, curve.optimum_octaves, _optimum_hover(c, size, curve.optimum_octaves))
            for size in c.spec.axis.values
            if (curve := c.curve(size)) is not None and curve.optimum_octaves is not None
        ])
        for c in comparison.contenders
    ]  # fmt: skip
    points = [(size, value) for _, found in drawn for size, value, _ in found]
    title = _optimum_title(comparison)
    note = "The minimum of each fitted curve with its 95 % interval. SP is dashed, μP solid."
    table = _optimum_table(comparison)
    if not points:
        empty = "Appears when a curve of one of these arms is bracketed."
        return Chart(key=OPTIMUM, title=title, note=note, table=table, empty=empty)
    bounds = [b for _, value in points for b in (value.value, value.low, value.high) if b is not None]
    span = (min(bounds) - 0.4, max(bounds) + 0.4)
    y_axis = axis(theme, "optimal base learning rate (octaves)", range=list(span), **octave_ticks(*span))
    return Chart(
        key=OPTIMUM, title=title, note=note, table=table, data=_against_size(comparison, theme, drawn),
        **_layouts(comparison, theme, y_axis, sorted({size for size, _ in points}), _labels(comparison)),
    )  # fmt: skip


def _optimum_hover(contender: Contender, size: int, best: Interval) -> str:
    at = f"{contender.label}, {contender.axis} {size}"
    return f"{at}<br>LR {numbers.rate(best.value)}<br>95 % {numbers.bounds(best)} octaves"


def _optimum_title(comparison: Comparison) -> str:
    moves = [
        (abs(drift.value), contender.label, drift.value)
        for contender in comparison.contenders
        if (drift := contender.arm.verdict.total_drift_octaves) is not None
    ]
    if not moves:
        return f"Optimal learning rate at each {comparison.baseline.axis}"
    least, most = min(moves), max(moves)
    if len(moves) == 1:
        return f"{least[1]}'s optimum moves {numbers.octaves(least[2])}"
    return (
        f"{least[1]}'s optimum moves least, {numbers.octaves(least[2])}; {most[1]}'s most, {numbers.octaves(most[2])}"
    )


def _optimum_table(comparison: Comparison) -> Table:
    columns = (
        Column(key="arm", label="Arm"),
        Column(key="size", label=comparison.baseline.axis.capitalize(), show=numbers.count),
        Column(key="status", label="Status"),
        Column(key="optimum_octaves", label="Optimal LR", show=numbers.power_of_two),
        Column(key="optimum_lr", label="as decimal", show=numbers.significant),
        Column(key="low_octaves", label="95 % low", show=numbers.power_of_two),
        Column(key="high_octaves", label="95 % high", show=numbers.power_of_two),
    )
    rows: list[tuple[Cell, ...]] = []
    for contender in comparison.contenders:
        for size in contender.spec.axis.values:
            if (curve := contender.curve(size)) is not None:
                best = curve.optimum_octaves
                rows.append((
                    contender.label, size, CurveStatus(curve.status).value.replace("_", "-"),
                    best.value if best else None, 2.0**best.value if best else None,
                    best.low if best else None, best.high if best else None,
                ))  # fmt: skip
    return Table(caption="Optimal learning rate of each arm", columns=columns, rows=tuple(rows))


# --- best loss -------------------------------------------------------------------------------------------------------


def loss_chart(comparison: Comparison, theme: Theme) -> Chart:
    """Lowest held-out loss of every arm against size."""
    drawn = [
        (c, [
            (size, loss, f"{c.label}, {c.axis} {size}<br>{numbers.interval(loss, sign=False, digits=3)} nats")
            for size in c.spec.axis.values if (loss := best_loss(c.curve(size))) is not None
        ])
        for c in comparison.contenders
    ]  # fmt: skip
    columns = (
        Column(key="arm", label="Arm"),
        Column(key="size", label=comparison.baseline.axis.capitalize(), show=numbers.count),
        Column(key="loss_nats", label="Best loss (nats)", show=numbers.loss),
        Column(key="low_nats", label="95 % low", show=numbers.loss),
        Column(key="high_nats", label="95 % high", show=numbers.loss),
    )
    rows = tuple((c.label, size, v.value, v.low, v.high) for c, found in drawn for size, v, _ in found)
    table = Table(caption="Best held-out loss of each arm", columns=columns, rows=rows)
    note = (
        "Held-out loss at the fitted minimum (at the best measured rate where there is none), with its 95 % interval."
    )
    title = _loss_title(rows, comparison.baseline.axis)
    if not rows:
        return Chart(key=LOSS, title=title, note=note, table=table, empty="Appears when a trial has finished.")
    y_axis = axis(theme, "best held-out loss (nats per token)", tickformat=".2f")
    sizes = sorted({size for _, found in drawn for size, _, _ in found})
    return Chart(
        key=LOSS, title=title, note=note, table=table, data=_against_size(comparison, theme, drawn),
        **_layouts(comparison, theme, y_axis, sizes, _labels(comparison)),
    )  # fmt: skip


def _loss_title(rows: Sequence[tuple[str, int, float, float | None, float | None]], axis_name: str) -> str:
    if not rows:
        return f"Best loss at each {axis_name}"
    largest = max(size for _, size, *_ in rows)
    there = sorted((value, label) for label, size, value, *_ in rows if size == largest)
    said = f"{there[0][1]} reaches the lowest loss at {axis_name} {largest}: {numbers.loss(there[0][0])} nats"
    if len(there) > 1:
        said += f", {numbers.loss(there[1][0] - there[0][0])} below {there[1][1]}"
    return said


# --- training curves -------------------------------------------------------------------------------------------------


def training_chart(comparison: Comparison, theme: Theme) -> Chart:
    """Training loss against tokens at each arm's best rate, at one size, with the equal loss of the speed-up."""
    note = (
        "Training loss of each seed at the arm's best measured rate: as logged (faint), and less noise by a curve that "
        "never rises (strong). The dotted line is the baseline's final loss."
    )
    lines = [(c, c.training(comparison.size)) for c in comparison.contenders] if comparison.size is not None else []
    rows = tuple(
        (c.label, comparison.size, c.at(comparison.size or 0)[0].lr_octaves, seed, place, loss)
        for c, curves in lines for seed, curve in curves.items()
        for place, loss in zip(curve.tokens, curve.losses_nats, strict=True)
    )  # fmt: skip
    table = _training_table(rows, comparison.baseline.axis)
    title = _training_title(comparison)
    if not rows:
        empty = "Appears when a trial of these arms has finished."
        return Chart(key=TRAINING, title=title, note=note, table=table, empty=empty)
    data = [trace for contender, curves in lines for trace in _training_traces(contender, curves, theme)]
    goal = _goal(comparison)
    labels = [c.label for c, curves in lines if curves]
    return Chart(
        key=TRAINING, title=title, note=note, table=table, data=data,
        layout=_training_layout(rows, labels, goal, theme, narrow=False),
        narrow=_training_layout(rows, labels, goal, theme, narrow=True),
    )  # fmt: skip


def _goal(comparison: Comparison) -> float | None:
    if comparison.size is None:
        return None
    ends = [curve.smoothed().losses_nats[-1] for curve in comparison.baseline.training(comparison.size).values()]
    return sum(ends) / len(ends) if ends else None


def _training_traces(contender: Contender, curves: Mapping[int, RunCurve], theme: Theme) -> Iterable[Json]:
    style = arm_style(contender.index, contender.arm.parametrization, theme)
    for place, (seed, curve) in enumerate(curves.items()):
        smooth = curve.smoothed()
        common = {"type": "scatter", "mode": "lines", "legendgroup": contender.key}
        yield {
            **common, "x": list(curve.tokens), "y": list(curve.losses_nats), "showlegend": False, "hoverinfo": "skip",
            "opacity": 0.25, "line": {"color": style.colour, "width": 1},
        }  # fmt: skip
        yield {
            **common, "x": list(smooth.tokens), "y": list(smooth.losses_nats), "name": contender.label,
            "showlegend": place == 0, "line": {"color": style.colour, "width": 2, "dash": style.dash},
            "hovertemplate": f"{contender.label}, seed {seed}<br>%{{x:.3s}} tokens: %{{y:.3f}} nats<extra></extra>",
        }  # fmt: skip


def _training_layout(
    rows: Sequence[tuple[Cell, ...]], labels: Sequence[str], goal: float | None, theme: Theme, *, narrow: bool
) -> Json:
    losses = sorted(float(row[-1] or 0.0) for row in rows)
    low, high = losses[0], losses[round(0.85 * (len(losses) - 1))]  # the first steps fall from far above
    lines = [] if goal is None else [
        {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": goal, "y1": goal,
         "line": {"color": theme.muted, "width": 1, "dash": "dot"}}
    ]  # fmt: skip
    rows_of_names = legend_rows(labels) if narrow else 1
    return base_layout(
        theme, height=340 if narrow else 400, showlegend=True, legend=legend(theme, y=1.02), shapes=lines,
        margin={"l": 56 if narrow else 72, "r": 16, "t": 24 + 22 * rows_of_names, "b": 56},
        xaxis=axis(theme, "tokens", rangemode="tozero", tickformat="~s", nticks=6 if narrow else 12, showgrid=False),
        yaxis=axis(
            theme, "training loss (nats per token)", tickformat=".2f",
            range=[low - 0.06 * (high - low) - 0.01, high + 0.1 * (high - low) + 0.01],
        ),
    )  # fmt: skip


def _training_title(comparison: Comparison) -> str:
    at = f"At {comparison.baseline.axis} {comparison.size}"
    found = [g for g in comparison.gains if g.size == comparison.size and g.speedup.tokens is not None]
    if not found:
        return "Training loss at each arm's best rate" + (
            "" if comparison.size is None else f", {at[0].lower()}{at[1:]}"
        )
    best = max(found, key=lambda gain: gain.speedup.tokens.value)  # type: ignore[union-attr]
    value = best.speedup.tokens
    assert value is not None  # noqa: S101 - chosen so above
    if value.value < 1:
        return f"{at} no arm is ahead of {comparison.baseline.label}"
    share = f"{100 / value.value:.0f} % of the tokens"
    return f"{at} {best.contender.label} is at {comparison.baseline.label}'s final training loss after {share}"


def _training_table(rows: tuple[tuple[Cell, ...], ...], axis_name: str) -> Table:
    columns = (
        Column(key="arm", label="Arm"),
        Column(key=axis_name, label=axis_name.capitalize(), show=numbers.count),
        Column(key="lr_octaves", label="LR", show=numbers.power_of_two),
        Column(key="seed", label="Seed", show=numbers.count),
        Column(key="tokens", label="Tokens", show=numbers.count),
        Column(key="train_loss_nats", label="Training loss (nats)", show=numbers.loss),
    )
    return Table(caption="Training loss at each arm's best measured rate", columns=columns, rows=rows)


# --- speed-up --------------------------------------------------------------------------------------------------------


def speedup_chart(comparison: Comparison, theme: Theme) -> Chart:
    """Speed-up over the baseline against size, in tokens and in device-seconds."""
    known = [gain for gain in comparison.gains if gain.speedup.tokens is not None]
    title, table = _speedup_title(comparison, known), speedup_table(comparison.gains, comparison.baseline)
    note = (
        f"How many times the tokens (filled) or device-seconds (hollow) {comparison.baseline.label} needs to the same "
        "training loss; above 1 the arm is faster. 95 % intervals over paired seeds, noise pooled over sizes."
    )
    if not known:
        why = next((gain.speedup.refusal for gain in comparison.gains if gain.speedup.refusal), "")
        empty = (
            f"No speed-up can be given: {why}." if why
            else "Appears when two arms have finished the same seeds at one width."
        )  # fmt: skip
        return Chart(key=SPEEDUP, title=title, note=note, table=table, empty=empty)
    data = [trace for c in comparison.contenders for trace in _speedup_traces(comparison, c, known, theme)]
    sizes = sorted({gain.size for gain in known})
    names = [trace["name"] for trace in data]
    y_axis = axis(theme, f"speed-up over {comparison.baseline.label}", ticksuffix="×", range=_speedup_range(known))
    layouts = _layouts(comparison, theme, y_axis, sizes, names)
    line = {"color": theme.muted, "width": 1, "dash": "dot"}
    for layout in layouts.values():
        layout["shapes"] = [{"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 1, "y1": 1, "line": line}]
    return Chart(key=SPEEDUP, title=title, note=note, table=table, data=data, **layouts)


def _speedup_range(known: Sequence[Gain]) -> list[float]:
    """Every value, and of the intervals what lies within thrice the values' reach: two seeds' may be enormous."""
    both = [v for gain in known for v in (gain.speedup.tokens, gain.speedup.device_seconds) if v is not None]
    values = [1.0, *(v.value for v in both)]
    reach = max(max(values) - min(values), 0.2)
    ends = [e for v in both for e in (v.low, v.high) if e is not None]
    low, high = min([*values, *ends]), max([*values, *ends])
    return [max(low, min(values) - reach, 0.0) - 0.05 * reach, min(high, max(values) + reach) + 0.05 * reach]


def _speedup_traces(
    comparison: Comparison, contender: Contender, known: Sequence[Gain], theme: Theme
) -> Iterable[Json]:
    for unit, hollow in (("tokens", False), ("device-seconds", True)):
        points = [
            (gain, value) for gain in known if gain.contender is contender
            and (value := gain.speedup.device_seconds if hollow else gain.speedup.tokens) is not None
        ]  # fmt: skip
        if points:
            series = _series(contender, theme, name=f"{contender.label}, {unit}", hollow=hollow)
            shift = 0.02 if hollow else 0.0
            yield {
                **series, "x": [_x(g.size, contender, len(comparison.contenders)) + shift for g, _ in points],
                "y": [value.value for _, value in points],
                "error_y": _bars([value for _, value in points], series["line"]["color"]),
                "text": [f"{contender.label}, {contender.axis} {g.size}<br>{gain_words(g)}" for g, _ in points],
                "hovertemplate": "%{text}<extra></extra>",
            }  # fmt: skip


def _speedup_title(comparison: Comparison, known: Sequence[Gain]) -> str:
    if not known:
        return f"Speed-up over {comparison.baseline.label} to equal loss"
    largest = max(gain.size for gain in known)
    said = [
        f"{gain.contender.label} {times(value.value)}"
        for gain in known if gain.size == largest and (value := gain.speedup.tokens) is not None
    ]  # fmt: skip
    at = f"{comparison.baseline.axis} {largest}"
    return f"Speed-up over {comparison.baseline.label} in tokens at {at}: {numbers.listed(said)}"
