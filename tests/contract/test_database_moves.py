"""Copies, backups and restores between both kinds of database: every row, bit for bit, and the ids that come next."""

from collections.abc import Callable
from pathlib import Path
import sqlite3
import stat
from typing import Any

import pytest
from sqlalchemy import Text, cast, delete, insert, select, text, update

from mutransfer.errors import ConflictError, NotFoundError, SpecError
from mutransfer.result import Cost, StudyRef, StudyResult
from service.db import studies
from service.db.backup import backup, restore
from service.db.copy import copy
from service.db.driver_store import DriverStore
from service.db.events import EventKind
from service.db.integrity import problems
from service.db.leases import Leases
from service.db.migrate import current, downgrade, head, upgrade
from service.db.session import make_engine, session_factory
from service.db.studies import Submission
from service.db.tables import Base, EventRow, OutboxRow, StudyRow, SummaryRow, TrialRow
from tests import study_builders as build

BEFORE_SUMMARIES = "0001"


@pytest.fixture
def make_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """A function: the URL of a fresh, empty database of a kind."""
    made: list[str] = []

    def make(kind: str) -> str:
        made.append(kind)
        if kind == "sqlite":
            return f"sqlite:///{tmp_path / f'{len(made)}.db'}"
        url: str = request.getfixturevalue("postgres_database")()
        return url

    return make


def fill(url: str) -> str:
    """A completed study, a running one with a failed trial, and a hole in the ids; nobody drives any more."""
    upgrade(url)
    sessions = session_factory(make_engine(url))
    ids = [
        studies.submit(sessions, Submission(spec=build.spec(name=name), trials_expected=3, idempotency_key=name))[0]
        for name in ("done", "running")
    ]
    leases = Leases(sessions)
    for study_id in ids:
        claim = leases.claim_next("test", 60.0)
        assert claim is not None
        assert claim.study_id == study_id
        store = DriverStore(sessions, study_id, claim.epoch, ttl_seconds=60.0)
        store.mark_running()
        store.record_facts(build.FACTS)
        results = [
            (build.planned(build.spec(), lr=lr), build.result(loss)) for lr, loss in ((-5.0, 2 / 3), (-3.0, None))
        ]
        build.run_phase(store, "search", results)
        store.finish_phase("search", {"recorded": {"adamw-mup": -5.0}})
        given_up = build.planned(build.spec(), lr=-1.0)
        store.plan_trials("search", [given_up])
        store.record_failure(
            given_up.key, attempt=3, traceback="boom µ \U0001f600 \\u0000 \x01 'quoted' \"twice\"", final=True
        )
        if study_id == ids[0]:
            cost = Cost(device_seconds=0.1 + 0.2, tokens=2**53, trials=2, reused=0)
            reference = StudyRef(id=study_id, name="done", state="completed")
            store.finish("completed", result=StudyResult(study=reference, arms=(), cost=cost))
        else:
            store.release()
    with sessions.begin() as session:
        session.execute(insert(EventRow), [{"study_id": ids[0], "kind": EventKind.FACTS, "payload": {}}] * 3)
        last = session.scalars(select(EventRow.id).order_by(EventRow.id.desc()).limit(2)).all()
        session.execute(delete(EventRow).where(EventRow.id.in_(last)))
    sessions.kw["bind"].dispose()
    return ids[0]


def contents(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, JSON as the text that is stored."""
    engine = make_engine(url)
    found = {}
    with engine.connect() as connection:
        for table in Base.metadata.sorted_tables:
            columns = [cast(column, Text) if "JSON" in str(column.type) else column for column in table.columns]
            rows = connection.execute(select(*columns).order_by(*table.primary_key.columns))
            found[table.name] = [tuple(row) for row in rows]
    engine.dispose()
    return found


def next_event(url: str, study_id: str) -> int:
    """The id that an event gets now."""
    engine = make_engine(url)
    with engine.begin() as connection:
        row = {"study_id": study_id, "kind": EventKind.FACTS, "payload": {}}
        found = connection.scalar(insert(EventRow).values(row).returning(EventRow.id))
    engine.dispose()
    assert found is not None
    return found


@pytest.mark.postgres
@pytest.mark.parametrize("target_kind", ["sqlite", "postgres"])
@pytest.mark.parametrize("source_kind", ["sqlite", "postgres"])
def test_a_copy_keeps_every_row_and_sequence(
    make_url: Callable[[str], str], source_kind: str, target_kind: str
) -> None:
    source, target = make_url(source_kind), make_url(target_kind)
    study_id = fill(source)
    copied = copy(source, target)
    before, after = contents(source), contents(target)
    assert after == before
    assert copied.rows == {name: len(rows) for name, rows in before.items()}
    assert copied.rows["trials"] == 3
    assert copied.rows["events"] > 10
    assert problems(target) == []
    if target_kind == "postgres":  # SQLite gives a removed last id out again, by itself as well
        expected = next_event(source, study_id) if source_kind == "postgres" else before["events"][-1][0] + 1
        assert next_event(target, study_id) == expected


@pytest.mark.postgres
def test_a_moved_study_goes_on_where_it_was(make_url: Callable[[str], str]) -> None:
    source, target = make_url("sqlite"), make_url("postgres")
    fill(source)
    copy(source, target)
    engine = make_engine(target)
    sessions = session_factory(engine)
    claim = Leases(sessions).claim_next("elsewhere", 60.0)
    assert claim is not None
    assert claim.epoch == 2
    store = DriverStore(sessions, claim.study_id, claim.epoch, ttl_seconds=60.0)
    fresh = build.planned(build.spec(), lr=-4.0)
    known = store.plan_trials("search", [build.planned(build.spec()), fresh])
    assert [result.loss_nats for result in known.values()] == [2 / 3]
    store.record_result(fresh.key, build.result(2.0))
    engine.dispose()
    assert problems(target) == []


@pytest.mark.parametrize("table", ["studies", "trials"])
def test_a_target_that_holds_rows_is_refused_and_unchanged(
    make_url: Callable[[str], str], database_url: str, table: str
) -> None:
    source = make_url("sqlite")
    fill(source)
    upgrade(database_url)
    engine = make_engine(database_url)
    if table == "studies":
        studies.submit(session_factory(engine), Submission(spec=build.spec(), trials_expected=None))
    else:
        with engine.begin() as connection:
            connection.execute(insert(TrialRow).values({"key": "0" * 32, "spec": {}}))
    before = contents(database_url)
    with pytest.raises(ConflictError, match="not empty"):
        copy(source, database_url)
    assert contents(database_url) == before
    engine.dispose()


def test_a_copy_that_breaks_leaves_the_target_empty(
    make_url: Callable[[str], str], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_url("sqlite")
    fill(source)
    engine = make_engine(source)
    with engine.begin() as connection:  # only SQLite keeps such a thing, behind our back
        connection.execute(text("PRAGMA ignore_check_constraints = ON"))
        connection.execute(text("UPDATE trials SET status = 'unheard-of'"))
    engine.dispose()
    with pytest.raises(Exception, match=r"ck_trials_status|CHECK"):
        copy(source, database_url)
    assert {name: len(rows) for name, rows in contents(database_url).items() if name in ("studies", "trials")} == {
        "studies": 0, "trials": 0,
    }  # fmt: skip


def test_a_source_in_use_or_out_of_date_is_refused(make_url: Callable[[str], str]) -> None:
    source, target = make_url("sqlite"), make_url("sqlite")
    fill(source)
    engine = make_engine(source)
    assert Leases(session_factory(engine)).claim_next("driver", 60.0) is not None
    engine.dispose()
    with pytest.raises(ConflictError, match="stop the service first"):
        copy(source, target)
    downgrade(source, BEFORE_SUMMARIES)
    with pytest.raises(ConflictError, match="db upgrade"):
        copy(source, target)


def test_a_backup_restores_whole_and_sound(make_url: Callable[[str], str], database_url: str, tmp_path: Path) -> None:
    fill(database_url)
    file = tmp_path / "backups" / "monday.db"
    backup(database_url, file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["monday.db"]
    kind = "sqlite" if database_url.startswith("sqlite") else "postgres"
    target = make_url(kind)
    restore(file, target)
    assert contents(target) == contents(database_url)
    assert problems(target) == []
    with pytest.raises(ConflictError, match="not empty"):
        restore(file, target)
    with pytest.raises(ConflictError, match="exists"):
        backup(database_url, file)


def test_a_backup_of_an_older_version_is_brought_up_to_date(make_url: Callable[[str], str], tmp_path: Path) -> None:
    source, target, file = make_url("sqlite"), make_url("sqlite"), tmp_path / "old.db"
    fill(source)
    backup(source, file)
    downgrade(f"sqlite:///{file}", BEFORE_SUMMARIES)
    restore(file, target)
    restored, kept = contents(target), contents(source)
    # When a study last changed is younger than the backup: the migration derives it.
    changed = [column.name for column in StudyRow.__table__.columns].index("updated_at")
    for found in (restored, kept):
        found["studies"] = [row[:changed] + row[changed + 1 :] for row in found["studies"]]
    first_tables = ("studies", "phases", "trials", "study_trials", "events", "outbox", "study_summaries")
    assert {name: restored[name] for name in first_tables} == {name: kept[name] for name in first_tables}
    assert (current(target), current(f"sqlite:///{file}")) == (head(), BEFORE_SUMMARIES)


def test_what_is_no_backup_is_refused(make_url: Callable[[str], str], tmp_path: Path) -> None:
    target, file = make_url("sqlite"), tmp_path / "backup.db"
    with pytest.raises(NotFoundError):
        restore(file, target)
    file.write_bytes(b"no database at all" * 100)
    with pytest.raises(SpecError, match="not a whole SQLite file"):
        restore(file, target)
    file.unlink()
    sqlite3.connect(file).close()
    with pytest.raises(SpecError, match="no backup of mutransfer"):
        restore(file, target)
    source = make_url("sqlite")
    fill(source)
    file.unlink()
    backup(source, file)
    content = bytearray(file.read_bytes())
    content[20_000:60_000] = b"\xff" * 40_000
    file.write_bytes(content)
    with pytest.raises(SpecError, match=r"damaged|not a whole"):
        restore(file, target)
    assert not Path(target.removeprefix("sqlite:///")).exists()


def test_a_newer_backup_is_refused(make_url: Callable[[str], str], tmp_path: Path) -> None:
    source, file = make_url("sqlite"), tmp_path / "newer.db"
    fill(source)
    backup(source, file)
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(ConflictError, match="9999, which this version does not know"):
        restore(file, make_url("sqlite"))


def test_what_does_not_agree_is_found(database_url: str) -> None:
    study_id = fill(database_url)
    assert problems(database_url) == []
    engine = make_engine(database_url)
    with engine.begin() as connection:
        connection.execute(update(SummaryRow).where(SummaryRow.study_id == study_id).values(trials_done=7))
        connection.execute(update(TrialRow).where(TrialRow.status == "diverged").values(status="planned"))
        connection.execute(update(OutboxRow).where(OutboxRow.kind == "trial_result").values(key=OutboxRow.key + "x"))
    engine.dispose()
    found = " · ".join(problems(database_url))
    assert f"the summary of study {study_id} does not count its trials" in found
    assert "has a result and another status" in found
    assert "messages tell of trials that their study does not use" in found
