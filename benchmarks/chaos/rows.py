"""All rows, by number."""

from benchmarks.chaos import row01_kills, row02_controller, row03_two_dispatchers, row04_takeover
from benchmarks.chaos.figures import Row

ROWS: dict[int, Row] = {
    module.ROW.number: module.ROW for module in (row01_kills, row02_controller, row03_two_dispatchers, row04_takeover)
}
