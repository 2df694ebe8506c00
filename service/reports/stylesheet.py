"""The stylesheet of pages and reports: the files of `static/css` in the order of their names, as one."""

from functools import cache
from importlib.resources import files


@cache
def stylesheet() -> str:
    """Base first, print last."""
    folder = files("service.dashboard") / "static" / "css"
    found = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".css")), key=lambda entry: entry.name)
    return "\n".join(entry.read_text("utf-8") for entry in found)
