"""Templates of the dashboard: autoescaped, strict about names, with the filters that turn values into text."""

from datetime import UTC, datetime
from functools import cache
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from service.reports import numbers

PACKAGES = ("service.dashboard", "service.reports")


def utc(seconds: float) -> datetime:
    """A moment from seconds since the epoch."""
    return datetime.fromtimestamp(seconds, tz=UTC)


def moment(seconds: float | None, kind: str = "time") -> Markup:
    """A `<time>` element in UTC; the page's script shows it in the viewer's zone (`age`: as a distance from now)."""
    if seconds is None:
        return Markup("–")
    at = utc(seconds)
    return Markup('<time datetime="{}" data-time="{}">{}</time>').format(
        at.isoformat(timespec="seconds"), kind, at.strftime("%d %b %Y, %H:%M UTC")
    )


def shape(dims: tuple[int, ...]) -> str:
    """`256 × 97`."""
    return " × ".join(str(side) for side in dims)


@cache
def environment() -> Environment:
    """The one environment of pages and reports."""
    loader = ChoiceLoader([PackageLoader(package, "templates") for package in PACKAGES])
    env = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    filters: dict[str, Any] = {
        "moment": moment, "duration": numbers.duration, "count": numbers.count, "significant": numbers.significant,
        "loss": numbers.loss, "power": numbers.power_of_two, "rate": numbers.rate, "shape": shape,
        "rate_interval": numbers.rate_interval, "interval": numbers.interval,
    }  # fmt: skip
    env.filters.update(filters)
    return env


def render(name: str, **context: Any) -> str:
    """A template as HTML."""
    return environment().get_template(name).render(**context)
