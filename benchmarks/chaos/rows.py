"""All rows, by number."""

from benchmarks.chaos import (
    row01_kills,
    row02_controller,
    row03_two_dispatchers,
    row04_takeover,
    row07_workers,
    row08_drain,
    row09_cancel,
    row11_poison,
    row12_machine,
)
from benchmarks.chaos.figures import Row

_MODULES = (
    row01_kills, row02_controller, row03_two_dispatchers, row04_takeover, row07_workers, row08_drain,
    row09_cancel, row11_poison, row12_machine,
)  # fmt: skip
ROWS: dict[int, Row] = {module.ROW.number: module.ROW for module in _MODULES}
