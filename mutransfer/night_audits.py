"""The audits of a night beside its baseline's: which matrices fail that grew otherwise before.

An audit's check alone is too coarse: at a nightly study's few widths most are undecided, and a rule that breaks moves
them to *fail* without ever having passed. So exponents are compared. One that fails tonight and did not then has
changed when the two 95 % intervals have nothing in common; nights share their seeds, so that of an unchanged exponent
they are the same but for rounding.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mutransfer.audit import AuditResult, Check, Exponent, Quantity
from mutransfer.nights import Figure, FigureKind, Method, counted
from mutransfer.result import Interval

_WORDS = {
    Quantity.WEIGHT: "weight at the start",
    Quantity.UPDATE: "change of weight",
    Quantity.OUTPUT: "output",
    Quantity.OUTPUT_CHANGE: "change of output",
}
#: A layer that moves too much changes the outputs of all behind it as well.
_OWN = (Quantity.WEIGHT, Quantity.UPDATE)


@dataclass(frozen=True, kw_only=True)
class _Moved:
    layer: str
    before: Exponent
    after: Exponent

    def __str__(self) -> str:
        now, then = (_power(exponent.measured) for exponent in (self.after, self.before))
        return f"{self.layer} (the {_WORDS[self.after.quantity]} goes as {now} instead of {then})"


def audit_figure(now: Mapping[str, AuditResult], then: Mapping[str, AuditResult] | None) -> Figure:
    """How many of the arms in `now` fail, compared arm by arm where there are audits `then`."""
    failing = sorted(arm for arm, audit in now.items() if audit.check is Check.FAIL)
    figure = Figure(kind=FigureKind.AUDIT, unit="arms", night=counted(len(failing)), method=Method.NONE)
    said = f"the audit fails for {', '.join(failing)}" if failing else "no arm fails the audit"
    if not then:
        return figure.model_copy(update={"reason": said})
    reasons = [reason for arm in failing if arm in then and (reason := _reason(arm, then[arm], now[arm]))]
    before = sum(audit.check is Check.FAIL for audit in then.values())
    update = {
        "baseline": counted(before), "change": counted(len(failing) - before), "tolerance": 0.0,
        "method": Method.COUNTS, "flagged": bool(reasons),
        "reason": f"the audit fails for {'; '.join(reasons)}" if reasons else said,
    }  # fmt: skip
    return figure.model_copy(update=update)


def _reason(arm: str, before: AuditResult, after: AuditResult) -> str:
    """Why a failing arm is news; empty when it is not."""
    moved = list(_moved(before, after))
    at_fault = [one for one in moved if one.after.quantity in _OWN] or moved
    first = {one.layer: one for one in reversed(at_fault)}  # the first exponent of each
    if first:
        return f"{arm}: {', '.join(str(first[layer]) for layer in dict.fromkeys(one.layer for one in at_fault))}"
    return f"{arm}, which passed in the baseline" if before.check is Check.PASS else ""


def _moved(before: AuditResult, after: AuditResult) -> Iterator[_Moved]:
    then = {(layer.name, exponent.quantity): exponent for layer in before.layers for exponent in layer.exponents}
    for layer in after.layers:
        for exponent in layer.exponents:
            known = then.get((layer.name, exponent.quantity))
            fails = exponent.check is Check.FAIL and known is not None and known.check is not Check.FAIL
            if known is not None and fails and _apart(known.measured, exponent.measured):
                yield _Moved(layer=layer.name, before=known, after=exponent)


def _apart(one: Interval | None, other: Interval | None) -> bool:
    """Whether two intervals have nothing in common. An unbounded side reaches everywhere."""
    if one is None or other is None:
        return False
    return _below(one, other) or _below(other, one)


def _below(one: Interval, other: Interval) -> bool:
    return one.high is not None and other.low is not None and one.high < other.low


def _power(measured: Interval | None) -> str:
    return "" if measured is None else f"width^{measured.value:.2f}"
