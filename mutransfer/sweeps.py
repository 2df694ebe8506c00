"""Learning-rate sweeps that were run elsewhere, as CSV: `arm,width,lr,seed,loss` with a header, one trial a line.

`lr` is the base learning rate itself, not octaves; an empty loss, `nan`, `inf` or `diverged` means the run diverged.
"""

from collections.abc import Iterator, Mapping
import csv
from io import StringIO
from math import isfinite, log2

from mutransfer.errors import Problem, SpecError
from mutransfer.points import lr_key
from mutransfer.trial import Observation

COLUMNS = ("arm", "width", "lr", "seed", "loss")
_DIVERGED = frozenset({"", "nan", "inf", "+inf", "-inf", "diverged", "none", "null"})

SweepCurves = dict[tuple[str, int], tuple[Observation, ...]]


def parse_sweeps(text: str) -> SweepCurves:
    """The trials of a CSV by (arm, width), in order of appearance.

    Raises SpecError naming the line and column of every fault.
    """
    reader = csv.DictReader(StringIO(text, newline=""), skipinitialspace=True)
    try:
        return _parsed(reader)
    except csv.Error as error:
        raise SpecError.at(f"line {reader.line_num + 1}", f"not CSV: {error}") from error


def _parsed(reader: "csv.DictReader[str]") -> SweepCurves:
    header = [name.strip() for name in reader.fieldnames or ()]
    if missing := [name for name in COLUMNS if name not in header]:
        found = ", ".join(header) or "nothing"
        raise SpecError.at("line 1", f"missing column {', '.join(missing)}: the header is {found}")
    reader.fieldnames = header
    problems: list[Problem] = []
    curves: dict[tuple[str, int], dict[tuple[float, int], Observation]] = {}
    for row in reader:
        _add(curves, row, reader.line_num, problems)
    if not curves and not problems:
        problems.append(Problem(field="line 2", message="there is no trial below the header"))
    if problems:
        raise SpecError(problems)
    return {key: tuple(trials.values()) for key, trials in curves.items()}


def _add(
    curves: dict[tuple[str, int], dict[tuple[float, int], Observation]],
    row: Mapping[str | None, str | list[str] | None],
    line: int,
    problems: list[Problem],
) -> None:
    cells = {name: str(row.get(name) or "").strip() for name in COLUMNS}
    if found := list(_faults(cells, line)):
        problems.extend(found)
        return
    loss = None if cells["loss"].lower() in _DIVERGED else float(cells["loss"])
    lr, seed = lr_key(log2(float(cells["lr"]))), int(cells["seed"])
    trials = curves.setdefault((cells["arm"], int(cells["width"])), {})
    if (lr, seed) in trials:
        problems.append(Problem(field=f"line {line}", message="the same arm, width, lr and seed stand on a line above"))
    trials[lr, seed] = Observation(lr_octaves=lr, seed=seed, loss_nats=loss)


def _faults(cells: Mapping[str, str], line: int) -> Iterator[Problem]:
    for column, message in (
        ("arm", None if cells["arm"] else "the arm has no name"),
        ("width", _integer_fault(cells["width"], least=1)),
        ("lr", _rate_fault(cells["lr"])),
        ("seed", _integer_fault(cells["seed"], least=0)),
        ("loss", _loss_fault(cells["loss"])),
    ):
        if message:
            yield Problem(field=f"line {line}, column {column}", message=message)


def _integer_fault(text: str, *, least: int) -> str | None:
    if text.isascii() and text.isdigit() and len(text) <= 9 and int(text) >= least:
        return None
    return f"{text!r} is not a whole number of at least {least}"


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if isfinite(value) else None


def _rate_fault(text: str) -> str | None:
    value = _number(text)
    return None if value is not None and value > 0.0 else f"{text!r} is not a learning rate above 0"


def _loss_fault(text: str) -> str | None:
    if text.lower() in _DIVERGED or _number(text) is not None:
        return None
    return f"{text!r} is not a loss: give nats per token, or leave it empty when the run diverged"
