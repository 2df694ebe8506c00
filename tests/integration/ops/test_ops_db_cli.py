"""`mutransfer db …` as an operator types it: what it prints, its exit status, and what it says of a wrong address."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from service.cli import app
from service.db import studies
from service.db.migrate import current, head
from service.db.session import make_engine, reading, session_factory
from service.db.studies import Submission
from tests import study_builders as build


def db(*arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(app, ["db", *arguments], input=stdin)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of the home's database, with one study."""
    monkeypatch.setenv("MUTRANSFER_HOME", str(tmp_path / "home"))
    assert db("upgrade").stdout == f"empty → {head()}\n"
    url = f"sqlite:///{tmp_path / 'home' / 'mutransfer.db'}"
    engine = make_engine(url)
    studies.submit(session_factory(engine), Submission(spec=build.spec(), trials_expected=None))
    engine.dispose()
    return url


def names(url: str) -> list[str]:
    engine = make_engine(url)
    with reading(session_factory(engine)) as session:
        found = [row.name for row in studies.page(session, state=None, project=None, before=None, limit=9)]
    engine.dispose()
    return found


def test_up_down_and_where_it_is(home: str) -> None:
    assert json.loads(db("current", "--json").stdout) == {"current": head(), "head": head(), "up_to_date": True}
    refused = db("downgrade", "0001", stdin="n\n")
    assert refused.exit_code == 1
    assert current(home) == head()
    assert db("downgrade", "0001", "--yes").stdout == f"{head()} → 0001\n"
    assert "run `mutransfer db upgrade`" in db("current").stdout
    stale = db("check")
    assert (stale.exit_code, head() in stale.stdout) == (1, True)
    assert db("upgrade").exit_code == 0
    assert names(home) == ["small"]


@pytest.mark.postgres
def test_to_postgresql_and_back_through_a_backup(home: str, postgres_url: str, tmp_path: Path) -> None:
    copied = db("copy", "--to", postgres_url)
    assert copied.exit_code == 0, copied.stderr
    assert "studies 1" in copied.stdout
    file = tmp_path / "backup.db"
    assert db("backup", str(file), "--database-url", postgres_url).exit_code == 0
    target = f"sqlite:///{tmp_path / 'restored.db'}"
    restored = db("restore", str(file), "--database-url", target)
    assert restored.exit_code == 0, restored.stderr
    assert db("check", "--database-url", target).stdout == "sound\n"
    assert names(target) == names(postgres_url) == ["small"]
    again = db("restore", str(file), "--database-url", target)
    assert (again.exit_code, "not empty" in again.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("upgrade", "--database-url", "nonsense"), "give sqlite:///PATH or postgresql://"),
        (("upgrade", "--database-url", "oracle://x/y"), "give sqlite:///PATH or postgresql://"),
        (("upgrade", "9999"), "9999"),
        (("restore", "/no/such/file"), "no file /no/such/file"),
    ],
)
def test_what_is_wrong_is_said(home: str, arguments: tuple[str, ...], said: str) -> None:
    done = db(*arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert isinstance(done.exception, SystemExit)


def test_a_server_that_is_away_is_said(home: str) -> None:
    done = db("current", "--database-url", "postgresql://nobody@127.0.0.1:9/x")
    assert done.exit_code == 1
    assert "does not answer" in done.stderr
