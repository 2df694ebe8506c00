"""All rows, by number."""

from benchmarks.chaos import (
    row01_kills,
    row02_controller,
    row03_two_dispatchers,
    row04_takeover,
    row05_restarts,
    row06_mlflow,
    row07_workers,
    row08_drain,
    row09_cancel,
    row10_clock,
    row11_poison,
    row12_machine,
    row13_node,
    row14_api,
    row15_disk,
)
from benchmarks.chaos.figures import Row

_MODULES = (
    row01_kills, row02_controller, row03_two_dispatchers, row04_takeover, row05_restarts, row06_mlflow, row07_workers,
    row08_drain, row09_cancel, row10_clock, row11_poison, row12_machine, row13_node, row14_api,
    row15_disk,
)  # fmt: skip
ROWS: dict[int, Row] = {module.ROW.number: module.ROW for module in _MODULES}
