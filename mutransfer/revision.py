"""Changing an accepted study: merging changes into its spec, and what an extension may change (docs/guide/studies.md).

An extension asks more of the same question: it adds sizes, seeds and rates and takes nothing away, so that every
finished trial keeps its place. Anything else is another question, which a clone asks.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mutransfer.errors import Problem, SpecError
from mutransfer.plan import Phase
from mutransfer.spec import StudySpec, Verification, parse_study

Json = dict[str, Any]
_CHECKS = (Verification.NONE, Verification.POINT, Verification.FULL)  # rising
NOT_EXTENDED = "an extension adds sizes, seeds and rates and changes nothing else: clone the study to ask this"


@dataclass(frozen=True, kw_only=True)
class Extension:
    """A study's next revision. `changed`: (before, after) by field; `reopened`: phases that may ask for more now.

    `rerecords`: whether the recorded rates are chosen anew, which only a new largest proxy makes them.
    """

    spec: StudySpec
    changed: Mapping[str, tuple[Any, Any]]
    reopened: tuple[Phase, ...]
    rerecords: bool


def merged(spec: StudySpec, changes: Mapping[str, Any]) -> StudySpec:
    """`spec` with a JSON merge patch (RFC 7396: objects merge, lists and values replace, null restores the default).

    Raises SpecError for anything that would not be a valid study as a whole.
    """
    return parse_study(merge_patch(spec.model_dump(mode="json"), changes))


def merge_patch(document: Any, changes: Any) -> Any:
    """RFC 7396. `document` is left as it is."""
    if not isinstance(changes, Mapping):
        return changes
    made = dict(document) if isinstance(document, Mapping) else {}
    for name, value in changes.items():
        if value is None:
            made.pop(name, None)
        else:
            made[name] = merge_patch(made.get(name), value)
    return made


def extension(spec: StudySpec, changes: Mapping[str, Any]) -> Extension:
    """The revision of `spec` that `changes` make. Raises SpecError naming each field that may not change so."""
    new = merged(spec, changes)
    changed = dict(_differences(spec.model_dump(mode="json"), new.model_dump(mode="json"), ""))
    problems = [problem for field in changed for problem in _problems(field, spec, new)]
    if problems:
        raise SpecError(problems)
    if not changed:
        raise SpecError.at("", "nothing changes: name more widths, seeds or rates than the study has")
    return Extension(
        spec=new,
        changed=changed,
        reopened=tuple(_reopened(spec, new, changed)),
        rerecords=new.axis.proxy[-1] != spec.axis.proxy[-1],
    )


def _differences(old: Any, new: Any, path: str) -> Iterator[tuple[str, tuple[Any, Any]]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            yield from _differences(old.get(name), new.get(name), f"{path}.{name}" if path else name)
    elif old != new:
        yield path, (old, new)


def _axis_field(spec: StudySpec) -> str:
    return "widths" if spec.depth is None else "depth"


def _problems(field: str, old: StudySpec, new: StudySpec) -> Iterator[Problem]:
    axis = _axis_field(old)
    rules: dict[str, Callable[[StudySpec, StudySpec], str | None]] = {
        f"{axis}.proxy": _proxy_problem,
        f"{axis}.targets": _targets_problem,
        "search.seeds.min": lambda a, b: _lowered(a.search.seeds.min, b.search.seeds.min),
        "search.seeds.max": lambda a, b: _lowered(a.search.seeds.max, b.search.seeds.max),
        "search.lr_octaves.low": _low_problem,
        "search.lr_octaves.high": _high_problem,
        "search.lr_octaves.limit": _limit_problem,
        "verify": _verify_problem,
    }
    found = rules[field](old, new) if field in rules else NOT_EXTENDED
    if found is not None:
        yield Problem(field=field, message=found)


def _proxy_problem(old: StudySpec, new: StudySpec) -> str | None:
    if old.search.samples_first and old.axis.proxy[-1] != new.axis.proxy[-1]:
        return f"{old.search.algorithm} tuned at the largest proxy {old.axis.proxy[-1]}, which has to stay the largest"
    return _dropped(old.axis.proxy, new.axis.proxy)


def _targets_problem(old: StudySpec, new: StudySpec) -> str | None:
    return _dropped(old.axis.targets, new.axis.targets)


def _dropped(old: tuple[int, ...], new: tuple[int, ...]) -> str | None:
    missing = sorted({*old} - {*new})
    return f"{missing} cannot be taken away: list what the study has and what is to be added" if missing else None


def _lowered(old: int, new: int) -> str | None:
    return f"{new} is fewer than the {old} that the study has: seeds can only be added" if new < old else None


def _low_problem(old: StudySpec, new: StudySpec) -> str | None:
    if old.search.samples_first:
        return f"{old.search.algorithm} sampled this range: widen search.lr_octaves.limit instead"
    before, after = old.search.lr_octaves, new.search.lr_octaves
    if after.low > before.low:
        return f"{after.low:g} is above {before.low:g}: the range can only grow"
    if not {*before.coarse()} <= {*after.coarse()}:
        return f"{after.low:g} shifts the grid: go below {before.low:g} by whole steps of {before.step:g}"
    return None


def _high_problem(old: StudySpec, new: StudySpec) -> str | None:
    if old.search.samples_first:
        return f"{old.search.algorithm} sampled this range: widen search.lr_octaves.limit instead"
    before, after = old.search.lr_octaves.high, new.search.lr_octaves.high
    return f"{after:g} is below {before:g}: the range can only grow" if after < before else None


def _limit_problem(old: StudySpec, new: StudySpec) -> str | None:
    (low, high), (new_low, new_high) = old.search.lr_octaves.limit, new.search.lr_octaves.limit
    if new_low > low or new_high < high:
        return f"{[new_low, new_high]} must enclose {[low, high]}: the limits can only widen"
    return None


def _verify_problem(old: StudySpec, new: StudySpec) -> str | None:
    if _CHECKS.index(new.verify) < _CHECKS.index(old.verify):
        return f"{new.verify.value} checks less than {old.verify.value}"
    return None


def _reopened(old: StudySpec, new: StudySpec, changed: Mapping[str, Any]) -> Iterator[Phase]:
    if old.audit_widths != new.audit_widths:
        yield Phase.AUDIT
    if any(field.startswith("search.") or field.endswith(".proxy") for field in changed):
        yield Phase.SEARCH
    yield from (Phase.TRANSFER, Phase.VERIFY)
