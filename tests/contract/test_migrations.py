from concurrent.futures import ThreadPoolExecutor

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, select

from service.db import studies, summaries
from service.db.driver_store import DriverStore
from service.db.leases import Leases
from service.db.migrate import config, current, downgrade, upgrade
from service.db.session import Sessions, make_engine, reading, session_factory
from service.db.studies import Submission
from service.db.tables import Base, SummaryRow
from service.studies.read import result_document
from tests import study_builders as build

SCRIPTS = ScriptDirectory.from_config(config())
HEAD = SCRIPTS.get_current_head()
SUMMARIES = next(script for script in SCRIPTS.walk_revisions() if script.path.endswith("_study_summaries.py"))
TABLES = {
    "studies", "study_summaries", "leases", "phases", "trials", "study_trials", "events", "outbox", "idempotency",
    "projects", "api_tokens", "login_sessions", "audit_log", "schedules", "nights", "channels", "deliveries",
}  # fmt: skip


def _tables(url: str) -> set[str]:
    engine = make_engine(url)
    try:
        return set(inspect(engine).get_table_names())
    finally:
        engine.dispose()


def test_forward_back_and_forward_again(database_url: str) -> None:
    assert current(database_url) is None
    upgrade(database_url)
    assert current(database_url) == HEAD
    assert _tables(database_url) == TABLES | {"alembic_version"}
    downgrade(database_url, "base")
    assert current(database_url) is None
    assert _tables(database_url) == {"alembic_version"}
    upgrade(database_url)
    assert _tables(database_url) == TABLES | {"alembic_version"}


def test_summaries_are_made_for_the_studies_that_there_are(database_url: str) -> None:
    upgrade(database_url)
    engine = make_engine(database_url)
    sessions = session_factory(engine)
    first = build.planned(build.spec())
    study_id, _ = studies.submit(sessions, Submission(spec=build.spec(), trials_expected=None))
    studies.submit(sessions, Submission(spec=build.spec(), trials_expected=None))  # never begins
    claim = Leases(sessions).claim_next("test", 30.0)
    assert claim is not None
    store = DriverStore(sessions, study_id, claim.epoch, ttl_seconds=30.0)
    store.mark_running()
    build.run_phase(
        store, "search", [(first, build.result(2.0)), (build.planned(build.spec(), lr=-6.0), build.result())]
    )
    given_up = build.planned(build.spec(), lr=-4.0)
    store.plan_trials("search", [given_up])
    store.record_failure(given_up.key, attempt=3, traceback="boom", final=True)
    with reading(sessions) as session:
        result = result_document(session, study_id)
    store.finish("completed", result=result)
    before = _summaries(sessions)
    assert len(before) == 2
    engine.dispose()
    downgrade(database_url, SUMMARIES.down_revision)
    upgrade(database_url)
    assert _summaries(sessions) == before
    assert summaries.in_brief(result).model_dump(mode="json") in [value for row in before for value in row]
    engine.dispose()


def _summaries(sessions: Sessions) -> list[tuple[object, ...]]:
    columns = [column for column in SummaryRow.__table__.columns if column.name != "study_id"]
    with reading(sessions) as session:
        return [tuple(row) for row in session.execute(select(*columns).order_by(SummaryRow.study_id))]


def test_migrations_make_the_tables_that_the_code_expects(database_url: str) -> None:
    upgrade(database_url)
    engine = make_engine(database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_several_processes_may_migrate_at_once(database_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(upgrade, [database_url] * 4))
    assert current(database_url) == HEAD
