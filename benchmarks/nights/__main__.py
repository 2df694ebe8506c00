"""`make bench-nights`: 2,000 unchanged nights and the planted faults; writes docs/results/nights and docs/nights.md.

`--nights 200 --faults 20` is a short look and keeps nothing; `--render` only writes the page from what is kept.
"""

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
import json
import os
from pathlib import Path
import sys
import time
from typing import Any

from benchmarks.machine import machine
from benchmarks.nights.run import FAULTS, document, planted, unchanged

TOP = Path(__file__).resolve().parents[2]
RESULT = TOP / "docs" / "results" / "nights" / "nights.json"
PAGE = TOP / "docs" / "nights.md"
NIGHTS, FAULT_NIGHTS = 2_000, 100
MOST_FLAGGED = 0.01


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 1 when a figure misses its bar."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nights", description=__doc__)
    parser.add_argument("--nights", type=int, default=NIGHTS, help="unchanged nights")
    parser.add_argument("--faults", type=int, default=FAULT_NIGHTS, help="nights of each planted fault")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--render", action="store_true", help="only write the page")
    options = parser.parse_args(arguments)
    if options.render:
        kept = json.loads(RESULT.read_text())
    else:
        kept = measure(options.nights, options.faults, options.seed, options.jobs)
        if (options.nights, options.faults) == (NIGHTS, FAULT_NIGHTS):
            RESULT.parent.mkdir(parents=True, exist_ok=True)
            RESULT.write_text(json.dumps(kept, indent=1) + "\n")
    if options.render or (options.nights, options.faults) == (NIGHTS, FAULT_NIGHTS):
        PAGE.write_text(render(kept))
    print("\n".join(lines(kept)))
    return 0 if passes(kept) else 1


def measure(nights: int, faults: int, seed: int, jobs: int) -> dict[str, Any]:
    """Run everything. The counts are the same for any number of processes."""
    started = time.monotonic()
    with ProcessPoolExecutor(jobs) as pool:
        counted = unchanged(nights, seed=seed, over=pool.map)
        print(f"{counted.flagged} of {counted.nights} unchanged nights flagged", flush=True)
        found = [
            planted(case, faults, seed=100_000 + 1_000 * index, over=pool.map) for index, case in enumerate(FAULTS)
        ]
    return document(counted, found) | {
        "seed": seed, "seconds": round(time.monotonic() - started, 1), "machine": machine()
    }  # fmt: skip


def passes(kept: dict[str, Any]) -> bool:
    """Whether every figure meets its bar."""
    flags = kept["unchanged"]
    return flags["flagged"] <= MOST_FLAGGED * flags["nights"] and all(
        found["bar"] is None or found["right"] >= found["bar"] * found["nights"] for found in kept["planted"]
    )


def lines(kept: dict[str, Any]) -> list[str]:
    """Two tables, as Markdown."""
    flags = kept["unchanged"]
    made = [
        "| unchanged nights | flagged | share | bar |", "|---|---|---|---|",
        f"| {flags['nights']:,} | {flags['flagged']} | {flags['flagged'] / flags['nights']:.2%} "
        f"(95 % interval up to {flags['upper']:.2%}) | ≤ {MOST_FLAGGED:.0%} |", "",
        "| two runs of one trial differ by | nights | flagged |", "|---|---|---|",
    ]  # fmt: skip
    made += [f"| {float(sd):g} nats | {seen[0]} | {seen[1]} |" for sd, seen in flags["by_rerun_sd"].items()]
    kinds = ", ".join(f"{kind} {number}" for kind, number in sorted(flags["by_kind"].items())) or "none"
    made += [
        "", f"Nights with a flag, by figure: {kinds}.", "",
        "| planted, the first night after the baseline | nights | flagged | with the right reason | bar |",
        "|---|---|---|---|---|",
    ]  # fmt: skip
    for found in kept["planted"]:
        bar = "" if found["bar"] is None else f"{found['bar']:.0%}"
        right = f"{found['right'] / found['nights']:.1%}"
        made.append(
            f"| {found['name']} | {found['nights']} | {found['flagged'] / found['nights']:.1%} | {right} | {bar} |"
        )
    return made


HEAD = """# How often nights are flagged

What the judgement of nights ([guide](guide/nightly.md)) promises, measured over simulated nights: the bracket search
asks for trials, curves of known shape answer with noise, the fit and the judgement are the service's own. Schedules of
{span} nights each have a baseline of their own, over the five shapes of [coverage](guide/coverage.md) and four kinds of
machine: from one where a trial repeats to the last digit to one where two runs of a trial differ as much as two seeds
do. Printed by `make bench-nights`, which keeps its counts in [docs/results/nights](results/nights/nights.json).

The simulated audits never err: an audit says what was planted, so its figure adds nothing to the false alarms below.
What audits themselves come to is measured apart ([audits](audits.md)).

*The right reason* means: every figure that must be flagged is (the optimum for a shift, drift and audit for a wrong
multiplier, throughput for a slowdown), and no arm is blamed that nothing was done to. Rows without a bar show what
smaller changes come to.

"""


def render(kept: dict[str, Any]) -> str:
    """The page, from the document alone."""
    from benchmarks.nights.run import NIGHTS_A_SCHEDULE

    barred = [found for found in kept["planted"] if found["bar"] is not None]
    said = "\n".join(f"- {found['name']}: “{found['example']}”" for found in barred)
    missed = [
        f"{found['name']} ({found['nights'] - found['right']} of {found['nights']} nights without the right reason, "
        f"{found['nights'] - found['flagged']} without a flag)"
        for found in barred
        if found["right"] < found["bar"] * found["nights"]
    ]
    shortfall = f"**Below its bar:** {'; '.join(missed)}.\n\n" if missed else ""
    chosen = ", ".join(f"`{name}` {value:g}" for name, value in kept["sensitivity"].items())
    tail = (
        f"\n\n{shortfall}What a flag says (the first of each kind of fault):\n\n{said}\n\n"
        f"Sensitivity: {chosen}. Seed {kept['seed']}, {kept['seconds']:.0f} s. {kept['machine']}.\n"
    )
    return HEAD.format(span=NIGHTS_A_SCHEDULE) + "\n".join(lines(kept)) + tail


if __name__ == "__main__":
    sys.exit(main())
