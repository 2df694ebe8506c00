"""Row 14: the API fuzzed from its own description, and with bodies that are no documents."""

from dataclasses import dataclass

from sqlalchemy import text

from benchmarks.chaos.figures import Figure, Row, at_least, at_most, exactly, told
from benchmarks.chaos.harness import Lab, Site, wait_until
from service.db import studies
from service.db.driver_store import DriverStore
from service.db.leases import Leases
from service.ports import free_port
from service.runtime import ensure_token
from tests import study_builders as build
from tests.api_fuzz import SLOW_SECONDS, Figures, fuzz
from tests.integration.api_fixtures import finish_study

COUNTED = ("studies", "idempotency", "leases", "trials", "schedules", "api_tokens", "projects")


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of it: valid and as many invalid requests an operation, for so many seconds at most."""

    examples: int
    seconds: float


def run(lab: Lab, size: Size) -> list[Figure]:
    """A real controller with one finished study."""
    port = str(free_port())
    with lab.site(MUTRANSFER_PORT=port, MUTRANSFER_RATE_LIMIT="100000") as site:
        study_id = _finished_study(site)
        token = ensure_token(site.home)
        controller = site.spawn("controller")
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: _answers(url), what="the controller", seconds=120)
        found = fuzz(
            url, examples=size.examples, seconds=size.seconds, token=token, study_id=study_id,
            number=lab.rng.randrange(1 << 30), rows=lambda: _rows(site),
        )  # fmt: skip
        alive, unhandled = controller.poll() is None, site.said("unhandled error")
    for what, how in found.faults.items():
        lab.say(f"{what}: {how[:500]}")
    return _figures(found, size, alive=alive, unhandled=unhandled)


def _figures(found: Figures, size: Size, *, alive: bool, unhandled: int) -> list[Figure]:
    wrote = sum("wrote a row" in fault for fault in found.faults)
    return [
        at_least("operations", len(found.operations), 25),
        at_least("requests", found.requests, min(400, 50 * size.examples)),
        exactly("answers of 5xx", sum(n for status, n in found.statuses.items() if status >= 500), 0),
        exactly("unhandled errors in the log", unhandled, 0),
        exactly("refused requests that wrote a row", wrote, 0),
        exactly("faults of any kind (status, schema, content type)", len(found.faults), 0),
        at_most("slowest answer (s)", found.slowest_seconds, SLOW_SECONDS),
        exactly("controller alive at the end", alive, 1),
        told("refused (4xx)", sum(n for status, n in found.statuses.items() if 400 <= status < 500)),
    ]


def _finished_study(site: Site) -> str:
    """A study with curves, a verdict and a recipe, so that every page and chart has something to show."""
    study_id, _ = studies.submit(site.sessions, studies.Submission(spec=build.spec(), trials_expected=44))
    claim = Leases(site.sessions).claim_next("fuzz", 60.0)
    if claim is None:
        raise RuntimeError("nobody else drives here, yet the study was not to be had")
    finish_study(DriverStore(site.sessions, claim.study_id, claim.epoch, ttl_seconds=60.0))
    return study_id


def _answers(url: str) -> bool:
    import httpx

    try:
        return httpx.get(f"{url}/healthz", trust_env=False, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def _rows(site: Site) -> int:
    counts = " + ".join(f"(SELECT count(*) FROM {table})" for table in COUNTED)
    with site.sessions() as session:
        return session.execute(text(f"SELECT {counts}")).scalar_one()


ROW = Row(
    number=14,
    fault="the API fuzzed from its own description (schemathesis); bodies oversized, deep, not UTF-8",
    databases=("sqlite", "postgresql"),
    run=run,
    long=Size(examples=60, seconds=600.0),
    short=Size(examples=1, seconds=20.0),
)
