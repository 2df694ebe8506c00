"""`python -m benchmarks.service`: seeds once, measures at both scales, prints a table, exits 1 when a bar is missed.

The data folder (`--data`, default in the temporary directory, about 6 GB) is kept and used again by the next run.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
import json
import os
from pathlib import Path
import random
from statistics import median
import sys
import tempfile

from benchmarks.machine import processor
from benchmarks.service import load, peer, seed, writes
from benchmarks.service.figures import Figure, Report
from benchmarks.service.server import database, kept_server, settings_said
from service.db.session import Sessions, make_engine, session_factory

DOCS = Path(__file__).resolve().parents[2] / "docs"
RATE = 100.0  # requests a second
P95 = 0.95
INGESTS = 3  # the median of so many counts
#: name → (unit, bar)
BARS = {
    "list, one reader, p95": ("ms", 30.0),
    "show, one reader, p95": ("ms", 30.0),
    "list, at 100 requests/s, p95": ("ms", 100.0),
    "show, at 100 requests/s, p95": ("ms", 100.0),
    "home page, p95": ("ms", 300.0),
    "page of a study with 1,000 trials, p95": ("ms", 300.0),
    "page of a running study, p95": ("ms", 300.0),
    "ingest, one driver": ("per_second", 500.0),
    "ingest, four drivers at once": ("per_second", 500.0),
    "claim, p95": ("ms", 20.0),
}


@dataclass(frozen=True, kw_only=True)
class Side:
    """One history with its own controller."""

    scale: seed.Scale
    sessions: Sessions
    port: int

    def paths(self, options: argparse.Namespace) -> dict[str, list[str]]:
        """What one reader asks for, by figure."""
        draw = random.Random(0)
        ids = seed.study_ids(self.sessions, trials=1000)
        shown = draw.sample(ids, min(len(ids), 50))
        running = seed.running(self.sessions)
        return {
            "list, one reader, p95": ["/api/v1/studies"] * options.requests,
            "show, one reader, p95": [f"/api/v1/studies/{draw.choice(shown)}" for _ in range(options.requests)],
            "home page, p95": ["/"] * options.pages,
            "page of a study with 1,000 trials, p95": [f"/studies/{draw.choice(shown)}" for _ in range(options.pages)],
            "page of a running study, p95": [f"/studies/{running}"] * options.pages,
        }


@contextmanager
def sides(urls: Mapping[str, str]) -> Iterator[list[Side]]:
    """Both histories, each behind a controller of its own."""
    with ExitStack() as stack:
        made = []
        for scale in seed.SCALES:
            engine = make_engine(urls[scale.name])
            stack.callback(engine.dispose)
            home = stack.enter_context(tempfile.TemporaryDirectory(prefix="mt-bench-"))
            port = stack.enter_context(load.controller(urls[scale.name], Path(home)))
            made.append(Side(scale=scale, sessions=session_factory(engine), port=port))
        yield made


def measure(
    both: Sequence[Side], options: argparse.Namespace, say: Callable[[str], None]
) -> dict[str, dict[str, float]]:
    """Every figure at both scales, which take turns every few requests: what else the machine does meets both."""
    found: dict[str, dict[str, float]] = {side.scale.name: {} for side in both}

    def note(name: str, values: Sequence[float]) -> None:
        for side, value in zip(both, values, strict=True):
            found[side.scale.name][name] = value
        say(f"{name:44} {values[-1]:8.1f} {values[0]:8.1f}")

    asked = [side.paths(options) for side in both]
    for name in asked[0]:
        samples = load.in_turns([(side.port, paths[name]) for side, paths in zip(both, asked, strict=True)])
        note(name, [1000.0 * sample.percentile(P95) for sample in samples])
    kinds = {"list": "list, one reader, p95", "show": "show, one reader, p95"}
    mixed = [
        (side.port, {kind: paths[name] for kind, name in kinds.items()})
        for side, paths in zip(both, asked, strict=True)
    ]
    offered = load.offered_in_turns(mixed, rate=RATE, seconds=options.seconds)
    for kind in kinds:
        note(f"{kind}, at 100 requests/s, p95", [1000.0 * sample[kind].percentile(P95) for sample in offered])
    for drivers, name in ((1, "ingest, one driver"), (4, "ingest, four drivers at once")):
        tries = [[writes.ingest(side.sessions, drivers=drivers) for side in both] for _ in range(INGESTS)]
        note(name, [median(column) for column in zip(*tries, strict=True)])
    note("claim, p95", [1000.0 * s.percentile(P95) for s in writes.claims([side.sessions for side in both])])
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Seed, measure, print, keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "mutransfer-bench-service")
    parser.add_argument("--json", action="store_true", help="print one JSON document on standard output")
    parser.add_argument("--no-mlflow", action="store_true", help="leave MLflow out")
    parser.add_argument("--no-keep", action="store_true", help="leave docs/ as it is")
    parser.add_argument("--note", default="", help="what else to say of the machine, such as other work on it")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured")
    parser.add_argument("--requests", type=int, default=300, help="requests of each kind by the one reader")
    parser.add_argument("--pages", type=int, default=40, help="requests of each page")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long requests are offered to each")
    options = parser.parse_args(arguments)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    options.data.mkdir(parents=True, exist_ok=True)
    rounds: dict[str, list[dict[str, float]]] = {scale.name: [] for scale in seed.SCALES}
    with kept_server(options.data) as server:
        for scale in seed.SCALES:
            url = database(server, scale.name)
            say(f"{scale.name}: {'seeded' if seed.seed(url, scale) else 'seeded before'}, {scale.trials:,} trials")
        with sides({scale.name: database(server, scale.name) for scale in seed.SCALES}) as both:
            for _ in range(options.rounds):
                for name, found in measure(both, options, say).items():
                    rounds[name].append(found)
        said = settings_said(server)
    mlflow = None
    if not options.no_mlflow:
        with tempfile.TemporaryDirectory(prefix="mt-bench-mlflow-") as home:
            mlflow = peer.runs_per_second(Path(home))
    large, small = rounds[seed.LARGE.name], rounds[seed.SMALL.name]
    report = Report(
        when=f"{datetime.now(UTC):%Y-%m-%d %H:%M}", machine=_machine(options.note), server=said,
        mlflow_runs_per_second=mlflow,
        figures=[
            Figure(
                name=name, unit=unit, bar=bar, large_rounds=tuple(found[name] for found in large),
                small_rounds=tuple(found[name] for found in small),
            )
            for name, (unit, bar) in BARS.items()
        ],
    )  # fmt: skip
    print(json.dumps(report.document(), indent=2) if options.json else f"{report.machine}\n{report.table()}")
    if not options.json and mlflow is not None:
        print(f"MLflow's REST API: {mlflow:.1f} runs/s")
    if not options.no_keep:
        for path in report.keep(DOCS):
            say(f"written {path}")
    return 0 if report.holds else 1


def _machine(note: str) -> str:
    load_average = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{processor()}, {os.cpu_count()} CPUs, load {load_average}{f', {note}' if note else ''}"


if __name__ == "__main__":
    sys.exit(main())
