"""`python -m benchmarks.chaos`: run the fault tests that have no kept result of this tree, then write the page.

`--row 7 --db postgresql` picks; `--force` runs again what is known; `--short` runs the short forms and keeps nothing.
"""

import argparse
from collections.abc import Sequence
import signal
import sys

from benchmarks.chaos import keep
from benchmarks.chaos.rows import ROWS
from benchmarks.chaos.run import Outcome, run_row

DATABASES = ("sqlite", "postgresql")


def say(line: str) -> None:
    """Print at once."""
    print(line, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 1 when a row that was run has failed."""
    options = _parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    failed = 0
    for number in [] if options.render else options.row or sorted(ROWS):
        for database in options.db or ROWS[number].databases:
            if database in ROWS[number].databases:
                failed += not _run(number, database, options)
    if not options.short:
        keep.PAGE.write_text(keep.render(ROWS))
        say(f"written {keep.PAGE.relative_to(keep.REPOSITORY)}")
    return 1 if failed else 0


def _run(number: int, database: str, options: argparse.Namespace) -> bool:
    """Whether the row has passed, now or before on this tree."""
    row, size = ROWS[number], ROWS[number].short if options.short else ROWS[number].long
    if not (options.force or options.short) and (known := keep.known(number, database)) is not None:
        say(f"row {number} on {database}: {'passed' if known else 'FAILED'} already on this tree")
        return known
    say(f"row {number} on {database}: {row.fault}")
    outcome = run_row(row, size, database, say=lambda line: say(f"  {line}"), seed=options.seed)
    _print(outcome)
    if not options.short:
        keep.store(row, size, database, outcome)
    return outcome.passed


def _print(outcome: Outcome) -> None:
    for figure in outcome.figures:
        say(f"  {figure.line()}")
    if outcome.error:
        say(f"  {outcome.error}")
    say(f"  {'PASS' if outcome.passed else 'FAIL'} in {outcome.seconds:.0f} s")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--row", type=int, nargs="*", choices=sorted(ROWS), help="which (default: all)")
    parser.add_argument("--db", nargs="*", choices=DATABASES, help="on which database (default: both)")
    parser.add_argument("--force", action="store_true", help="also what has a result of this tree")
    parser.add_argument("--short", action="store_true", help="the short forms; keeps nothing")
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which things break")
    parser.add_argument("--render", action="store_true", help="only write the page")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
