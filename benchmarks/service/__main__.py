"""`python -m benchmarks.service`: seeds once, measures at both scales, prints a table, exits 1 when a bar is missed.

The data folder (`--data`, default in the temporary directory, about 6 GB) is kept and used again by the next run.
"""

import argparse
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
import json
import os
from pathlib import Path
import random
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


def measure(url: str, scale: seed.Scale, options: argparse.Namespace, say: Callable[[str], None]) -> dict[str, float]:
    """Every figure at one scale."""
    engine = make_engine(url)
    sessions = session_factory(engine)
    found: dict[str, float] = {}

    def note(name: str, value: float) -> None:
        found[name] = value
        say(f"{scale.name:6} {name:44} {value:8.1f}")

    try:
        with tempfile.TemporaryDirectory(prefix="mt-bench-") as home:
            _reads(url, Path(home), sessions, options, note)
        note("ingest, one driver", writes.ingest(sessions, drivers=1))
        note("ingest, four drivers at once", writes.ingest(sessions, drivers=4))
        note("claim, p95", 1000.0 * writes.claims(sessions).percentile(P95))
    finally:
        engine.dispose()
    return found


def _reads(
    url: str, home: Path, sessions: Sessions, options: argparse.Namespace, note: Callable[[str, float], None]
) -> None:
    draw = random.Random(0)
    ids = seed.study_ids(sessions, trials=1000)
    shown = draw.sample(ids, min(len(ids), 50))
    shows = [f"/api/v1/studies/{draw.choice(shown)}" for _ in range(options.requests)]
    lists = ["/api/v1/studies"] * options.requests
    running = seed.running(sessions)
    with load.controller(url, home) as port:
        for name, paths in (
            ("list, one reader, p95", lists),
            ("show, one reader, p95", shows),
            ("home page, p95", ["/"] * options.pages),
            (
                "page of a study with 1,000 trials, p95",
                [f"/studies/{draw.choice(shown)}" for _ in range(options.pages)],
            ),
            ("page of a running study, p95", [f"/studies/{running}"] * options.pages),
        ):
            note(name, 1000.0 * load.one_reader(port, paths).percentile(P95))
        both = load.offered(port, {"list": lists, "show": shows}, rate=RATE, seconds=options.seconds)
        for kind, sample in both.items():
            note(f"{kind}, at 100 requests/s, p95", 1000.0 * sample.percentile(P95))


def main(arguments: Sequence[str] | None = None) -> int:
    """Seed, measure, print, keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "mutransfer-bench-service")
    parser.add_argument("--json", action="store_true", help="print one JSON document on standard output")
    parser.add_argument("--no-mlflow", action="store_true", help="leave MLflow out")
    parser.add_argument("--no-keep", action="store_true", help="leave docs/ as it is")
    parser.add_argument("--note", default="", help="what else to say of the machine, such as other work on it")
    parser.add_argument("--rounds", type=int, default=3, help="how often each history has its turn")
    parser.add_argument("--requests", type=int, default=300, help="requests of each kind by the one reader")
    parser.add_argument("--pages", type=int, default=40, help="requests of each page")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long requests are offered")
    options = parser.parse_args(arguments)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    options.data.mkdir(parents=True, exist_ok=True)
    rounds: dict[str, list[dict[str, float]]] = {scale.name: [] for scale in seed.SCALES}
    with kept_server(options.data) as server:
        for scale in seed.SCALES:
            url = database(server, scale.name)
            say(f"{scale.name}: {'seeded' if seed.seed(url, scale) else 'seeded before'}, {scale.trials:,} trials")
        for _ in range(options.rounds):
            for scale in seed.SCALES:
                rounds[scale.name].append(measure(database(server, scale.name), scale, options, say))
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
