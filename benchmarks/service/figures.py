"""What was measured, held to its bars, as a table, as JSON and as docs/service-speed.md."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
import json
from pathlib import Path
from statistics import median

GROWTH = 2.0  # times its figure at 10,000 rows that a figure at 1,000,000 may be

PAGE = """# Speed of the service

Printed by `make bench-service` ({when} UTC; {machine}). A history of 1,000 studies and 1,000,000 trials in PostgreSQL,
each trial with its training curve, events and outbox messages, beside one of 105 studies and 10,000 trials; one
controller process. PostgreSQL {server} with its own defaults: {settings}.

Requests come over real connections to 127.0.0.1: from one reader, one after another, and offered at 100 a second (lists
and single studies in turn), where a latency counts from the moment of arrival. Lists and the home page have 50 studies.
Ingest is a driver's recorder from the first result to the last commit, a claim is a dispatcher's. The two histories,
each behind a controller of its own, take turns every five requests, 2.5 seconds or one claim, so that other work on the
machine's two cores, of which there was some, meets both. Each figure is the median of {rounds} round(s).

```
{table}
```

{verdict}

MLflow's own REST API on the same machine, right after: **{mlflow} runs a second**, each created, given one batch of 30
metric points and 10 params, and ended (one client, a fresh server on SQLite as `mutransfer up` starts it).

Every round of every run is in [results/service](results/service), one on a crowded machine without precedence too.
What made lists and ingestion independent of history: [decision 0019](adr/0019-lists-are-read-from-summaries.md), which
has the figures from before. Requests paused for 150 ms now and then until the controller took what lives as long as it
does out of garbage collection.
"""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure at both scales, a value a round. `bar` is a ceiling in milliseconds, or for `per_second` a floor."""

    name: str
    unit: str  # ms or per_second
    bar: float
    large_rounds: tuple[float, ...]
    small_rounds: tuple[float, ...]

    @property
    def large(self) -> float:
        """The figure with the long history."""
        return median(self.large_rounds)

    @property
    def small(self) -> float:
        """The figure with the short one."""
        return median(self.small_rounds)

    @property
    def growth(self) -> float:
        """How much worse it is with the long history."""
        return self.large / self.small if self.unit == "ms" else self.small / self.large

    @property
    def holds(self) -> bool:
        """Whether it meets its bar, and does not grow with history."""
        meets = self.large <= self.bar if self.unit == "ms" else self.large >= self.bar
        return meets and self.growth <= GROWTH

    def row(self) -> str:
        """A line of the table."""
        sign, unit = ("≤", "ms") if self.unit == "ms" else ("≥", "/s")
        bar = f"{sign} {self.bar:g} {unit}"
        return (
            f"{self.name:44} {self.large:8.1f} {unit:2} {self.small:8.1f} {unit:2} {self.growth:6.2f}  "
            f"{bar:>10}  {'ok' if self.holds else 'MISSED'}"
        )


@dataclass(frozen=True, kw_only=True)
class Report:
    """All figures of one run."""

    when: str
    machine: str
    server: Mapping[str, str]
    figures: Sequence[Figure]
    mlflow_runs_per_second: float | None

    @property
    def holds(self) -> bool:
        """Whether every figure does."""
        return all(figure.holds for figure in self.figures)

    def table(self) -> str:
        """The figures as text."""
        head = f"{'figure':44} {'1,000,000':>11} {'10,000':>11} {'ratio':>6}  {'bar':>10}"
        return "\n".join([head, *(figure.row() for figure in self.figures)])

    def document(self) -> dict[str, object]:
        """For scripts."""
        return {
            "when": self.when, "machine": self.machine, "server": dict(self.server),
            "figures": [
                {**asdict(f), "large": f.large, "small": f.small, "growth": f.growth, "holds": f.holds}
                for f in self.figures
            ],
            "mlflow_runs_per_second": self.mlflow_runs_per_second, "holds": self.holds,
        }  # fmt: skip

    def keep(self, docs: Path) -> list[Path]:
        """Write docs/results/service/WHEN.json and docs/service-speed.md; returns both."""
        folder = docs / "results" / "service"
        folder.mkdir(parents=True, exist_ok=True)
        kept = folder / f"{self.when.replace(' ', '-').replace(':', '')}.json"
        kept.write_text(json.dumps(self.document(), indent=2) + "\n")
        page = docs / "service-speed.md"
        page.write_text(self._page())
        return [kept, page]

    def _page(self) -> str:
        settings = ", ".join(
            f"{name} {value}" for name, value in sorted(self.server.items()) if name != "server_version"
        )
        missed = [figure.name for figure in self.figures if not figure.holds]
        verdict = f"Missed: {', '.join(missed)}." if missed else "Every bar is met, and nothing grows with history."
        mlflow = "not measured" if self.mlflow_runs_per_second is None else f"{self.mlflow_runs_per_second:.0f}"
        return PAGE.format(
            when=self.when, machine=self.machine, server=self.server["server_version"].split()[0], settings=settings,
            table=self.table(), verdict=verdict, mlflow=mlflow, rounds=len(self.figures[0].large_rounds),
        )  # fmt: skip
