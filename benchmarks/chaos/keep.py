"""Kept results, one file a row and database in docs/results/chaos, and the page made of them."""

from collections.abc import Mapping
from dataclasses import asdict
import json
from pathlib import Path
import subprocess
from typing import Any

from benchmarks.chaos.figures import Row
from benchmarks.chaos.run import Outcome

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = REPOSITORY / "docs" / "results" / "chaos"
PAGE = REPOSITORY / "docs" / "reliability.md"
#: What a result depends on, its row's own file besides: a change of anything else leaves it valid.
PRODUCT = ("mutransfer", "models", "optimizers", "workers", "service", "migrations")
SHARED = ("harness.py", "lives.py", "machine.py", "node.py", "stub_optimizer.py")


def tree(number: int) -> str:
    """The last commit of the code that a row's result depends on, with a mark when it has been changed since."""
    chaos = Path(__file__).parent
    files = [chaos / name for name in SHARED] + sorted(chaos.glob(f"row{number:02d}_*.py"))
    paths = (*PRODUCT, *map(str, files))
    return _git("log", "-1", "--format=%H", "--", *paths) + (
        "-changed" if _git("status", "--porcelain", "--", *paths) else ""
    )


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def known(number: int, database: str) -> bool | None:
    """Whether the row passed on exactly this code; None when it has not been run on it."""
    path = _path(number, database)
    kept = json.loads(path.read_text()) if path.exists() else {}
    here = tree(number)
    if kept.get("tree") != here or here.endswith("-changed"):
        return None
    return bool(kept["passed"])


def store(row: Row, size: object, database: str, outcome: Outcome) -> None:
    """Keep a result."""
    document = {
        "row": row.number, "fault": row.fault, "database": database,
        "machine": outcome.machine, "tree": tree(row.number),
        "size": asdict(size),  # type: ignore[call-overload]
        "passed": outcome.passed, "error": outcome.error, "seconds": round(outcome.seconds, 1),
        "figures": [figure.document() for figure in outcome.figures],
    }  # fmt: skip
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = _path(row.number, database)
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(document, indent=1, default=str) + "\n")
    partial.rename(path)


def _path(number: int, database: str) -> Path:
    return RESULTS / f"row{number:02d}-{database}.json"


HEAD = """# What the service survives

The fault tests of the service with what they measured. Printed by `make chaos` (`python -m benchmarks.chaos --render`)
from the documents in [docs/results/chaos](results/chaos); `make chaos ROW=7 DB=postgresql` runs one row, and a row that
has a result of the same code is not run again unless `FORCE=1`. Short forms, the same code with smaller numbers, are in
the ordinary tests (tests/integration/chaos).

"""


def render(rows: Mapping[int, Row]) -> str:
    """The page, from the documents alone."""
    parts = [HEAD, "| row | fault | " + " | ".join(("SQLite", "PostgreSQL")) + " |\n|---|---|---|---|\n"]
    parts += [_summary(row) for row in rows.values()]
    parts += [_section(row) for row in rows.values()]
    return "".join(parts)


def _load(number: int, database: str) -> dict[str, Any] | None:
    path = _path(number, database)
    return json.loads(path.read_text()) if path.exists() else None


def _summary(row: Row) -> str:
    cells = [_mark(row, database) for database in ("sqlite", "postgresql")]
    return f"| [{row.number}](#row-{row.number}) | {row.fault} | {cells[0]} | {cells[1]} |\n"


def _mark(row: Row, database: str) -> str:
    if database not in row.databases:
        return "does not apply"
    kept = _load(row.number, database)
    if kept is None:
        return "not run yet"
    return ("pass" if kept["passed"] else "**fail**") + ("" if _is_long(row, kept) else ", shortened")


def _is_long(row: Row, kept: Mapping[str, Any]) -> bool:
    return bool(kept["size"] == json.loads(json.dumps(asdict(row.long))))


def _section(row: Row) -> str:
    kept = {database: found for database in row.databases if (found := _load(row.number, database))}
    lines = [f"\n## Row {row.number}\n\n{row.fault[0].upper()}{row.fault[1:]}.\n\n"]
    if not kept:
        return "".join([*lines, "Not run yet.\n"])
    names = list(dict.fromkeys(figure["name"] for found in kept.values() for figure in found["figures"]))
    lines.append(f"| figure | bar | {' | '.join(kept)} |\n|---|---|{'---|' * len(kept)}\n")
    lines += [_line(name, kept.values()) for name in names]
    lines.append("\n")
    lines += [_provenance(row, database, found) for database, found in kept.items()]
    return "".join(lines)


def _line(name: str, kept: Any) -> str:
    found = [next((f for f in document["figures"] if f["name"] == name), None) for document in kept]
    bars = list(dict.fromkeys(figure["bar"] for figure in found if figure))
    cells = ["" if figure is None else f"{figure['value']:g}{'' if figure['passed'] else ' ✕'}" for figure in found]
    return f"| {name} | {' / '.join(bars)} | {' | '.join(cells)} |\n"


def _provenance(row: Row, database: str, kept: Mapping[str, Any]) -> str:
    size = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in kept["size"].items())
    short = "" if _is_long(row, kept) else ", **shortened**"
    error = f" It did not end: {kept['error'].splitlines()[0]}." if kept["error"] else ""
    return (
        f"{database}: {size}{short}; {kept['seconds']:.0f} s; {kept['machine']}; code {kept['tree'][:12]}.{error}\n\n"
    )
