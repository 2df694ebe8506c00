"""Tables of the pages that benchmarks print."""

from collections.abc import Iterable, Sequence


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, missing: Sequence[str] = ()) -> str:
    """A Markdown table, one cell a column, and a line that names what has no document yet."""
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    tail = f"\nNot run yet: {', '.join(missing)}.\n" if missing else ""
    return "\n".join(lines) + "\n" + tail
