"""The whole API fuzzed from its own OpenAPI description (schemathesis), and with bodies that are no documents.

`make chaos` row 14 calls `fuzz(url, examples=…, seconds=…, token=…, study_id=…)` against a running service and prints
the `Figures`; `Figures.faults` must be empty. The ordinary suite does the same with few examples and a fixed seed. Give
it a service of its own, with a generous MUTRANSFER_RATE_LIMIT: it submits, cancels, and makes tokens and projects.
`study_id` is a completed study's, so that not every look-up is a 404; `rows` counts the rows that a refused request
could have written.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
import time
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
import requests
import schemathesis
from schemathesis import GenerationMode
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [response_schema_conformance, content_type_conformance, status_code_conformance]
SLOW_SECONDS = 20.0  # of a machine that others use too: an answer that takes longer counts as a hang
ROUND = 5
DEEP = 100_000
BODIES: dict[str, bytes] = {
    "empty": b"", "no UTF-8": b"\xff\xfe{\x80}", "null byte": b"\x00", "deep lists": b"[" * DEEP,
    "deep objects": b'{"a":' * (DEEP // 10), "closed and deep": b"[" * 5000 + b"]" * 5000, "number": b"1e999",
    "not a number": b'{"name": NaN}', "lone surrogate": b'{"name": "\\ud800", "scope": "read"}',
    "huge integer": b'{"device_hours": ' + b"9" * 5000 + b"}", "oversized": b'{"a": "' + b"x" * (3 << 20) + b'"}',
    "YAML aliases": b"a: &a [x]\n" + b"".join(b"b%d: [*a, *a]\n" % n for n in range(500)),
    "YAML tag": b"!!python/object/apply:os.system ['true']",
}  # fmt: skip
TYPES = ("application/json", "application/yaml", "")


@dataclass
class Figures:
    """What was asked and what went wrong. `faults` says each fault once, with how to repeat it."""

    requests: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    operations: set[str] = field(default_factory=set)
    slowest_seconds: float = 0.0
    faults: dict[str, str] = field(default_factory=dict)

    def note(self, operation: str, response: Any, seconds: float) -> None:
        """Count one answer, and find what is wrong with it."""
        self.requests += 1
        self.statuses[response.status_code] += 1
        self.operations.add(operation)
        self.slowest_seconds = max(self.slowest_seconds, seconds)
        given = response.headers.get("content-type", "")
        kind = given if isinstance(given, str) else given[0]  # schemathesis keeps a list of each
        if response.status_code >= 500:
            self.faults[f"{operation}: {response.status_code}"] = _repeat(response)
        elif response.status_code >= 400 and not kind.startswith("application/problem+json"):
            self.faults[f"{operation}: {response.status_code} without a problem document"] = _repeat(response)
        if seconds > SLOW_SECONDS:
            self.faults[f"{operation}: {seconds:.0f} s"] = _repeat(response)


def fuzz(
    url: str, *, examples: int, seconds: float = 600.0, token: str = "", study_id: str = "", number: int = 0,
    rows: Callable[[], int] | None = None,
) -> Figures:  # fmt: skip
    """Fuzz the service at `url`: `examples` valid and as many invalid requests an operation, for `seconds` at most."""
    figures, until = Figures(), time.monotonic() + seconds
    session = requests.Session()
    session.trust_env = False
    if token:
        session.headers["Authorization"] = f"Bearer {token}"
    document = session.get(f"{url}/api/v1/openapi.json", timeout=SLOW_SECONDS).json()
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=url)
    for turn, count in enumerate(_rounds(examples)):
        for found in schema.get_all_operations():
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                if time.monotonic() < until:
                    _fuzz_operation(figures, session, found.ok(), mode, count, until, study_id, number + turn)
        if turn == 0:
            for operation, method, path in _operations(document):
                if method in ("post", "put", "delete", "patch") and time.monotonic() < until:
                    _throw_bodies(figures, session, operation, method, f"{url}{path}", rows, briefly=examples < ROUND)
    return figures


def _rounds(examples: int) -> Iterator[int]:
    """How many examples of each operation in each round: time that runs out is missed by all of them alike."""
    for begun in range(0, examples, ROUND):
        yield min(ROUND, examples - begun)


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for path, operations in document["paths"].items():
        for method in operations:
            concrete = path.replace("{study_id}", "st_01KAMRQ4ZJ5T2V8Y6W3X7B9CDE").replace("{name}", "thrown")
            yield f"{method.upper()} {path}", method, concrete.replace("{", "").replace("}", "")


def _throw_bodies(
    figures: Figures, session: requests.Session, operation: str, method: str, url: str, rows: Callable[[], int] | None,
    *, briefly: bool,
) -> None:  # fmt: skip
    """Every body as every type; `briefly`: as one of them each."""
    known = rows() if rows else 0
    for index, body in enumerate(BODIES.values()):
        for kind in (TYPES[index % len(TYPES)],) if briefly else TYPES:
            started = time.monotonic()
            headers = {"Content-Type": kind} if kind else {}
            response = session.request(method, url, data=body, headers=headers, timeout=3 * SLOW_SECONDS)
            figures.note(operation, response, time.monotonic() - started)
            if rows and (now := rows()) != known:
                known = now
                if response.status_code >= 400:
                    figures.faults[f"{operation}: a refused request wrote a row"] = _repeat(response)


def _fuzz_operation(
    figures: Figures, session: requests.Session, operation: Any, mode: GenerationMode, examples: int, until: float,
    study_id: str, number: int,
) -> None:  # fmt: skip
    turn = 0

    def send(case: Any) -> None:
        nonlocal turn
        turn += 1
        if time.monotonic() > until:
            return
        if study_id and turn % 2 and "study_id" in (case.path_parameters or {}):
            case.path_parameters["study_id"] = study_id
        started = time.monotonic()
        response = case.call(session=session, timeout=3 * SLOW_SECONDS)
        figures.note(operation.label, response, time.monotonic() - started)
        try:
            case.validate_response(response, checks=CHECKS)
        except FailureGroup as group:
            for failure in group.exceptions:
                figures.faults[f"{operation.label}: {failure.title}: {response.status_code}"] = str(failure)[:2000]

    strategy = operation.as_strategy(generation_mode=mode)
    limits = settings(
        max_examples=examples, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    with suppress(Unsatisfiable):  # an operation without parameters has no invalid request
        seed(number)(limits(given(strategy)(send)))()


def _repeat(response: Any) -> str:
    request = response.request
    body = request.body or b""
    return f"{request.method} {request.url} {body[:500]!r} → {response.text[:500]}"
