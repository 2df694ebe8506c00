"""Tokens, projects and the audit log as a person types them, against a real server and against the database alone."""

from collections.abc import Iterator
import json
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner, Result

from service.app import create_app
from service.cli import app
from service.db.migrate import upgrade
from service.runtime import ensure_token, write_runtime
from service.settings import Settings
from tests.integration.api_fixtures import served


def cli(*arguments: str, **env: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env=env)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home whose service runs, with the token that `up` would have made."""
    monkeypatch.setenv("MUTRANSFER_HOME", str(tmp_path))
    settings = Settings().prepare_home()
    upgrade(settings.database_url)
    ensure_token(tmp_path)
    with capture_logs(), served(create_app(settings)) as url:
        write_runtime(tmp_path, {"url": url, "token": True})
        yield tmp_path


def test_tokens_from_the_first_to_the_last(home: Path) -> None:
    assert cli("whoami").stdout.startswith("the token of this service's home")
    made = cli("token", "create", "nightly", "--scope", "read")
    assert made.exit_code == 0, made.output
    secret = made.stdout.strip()
    assert secret.startswith("mut_")
    assert "shown this once" in made.stderr
    assert cli("whoami", MUTRANSFER_TOKEN=secret).stdout == "nightly: read, all projects\n"
    refused = cli("token", "list", MUTRANSFER_TOKEN=secret)
    assert (refused.exit_code, "scope admin" in refused.stderr) == (1, True)
    listed = json.loads(cli("token", "list", "--json").stdout)
    assert [item["name"] for item in listed] == ["nightly"]
    assert cli("token", "revoke", listed[0]["id"]).exit_code == 0
    assert cli("whoami", MUTRANSFER_TOKEN=secret).exit_code == 1
    assert "nightly" in cli("token", "list").stdout
    wrong = cli("token", "create", "x", "--days", "0")
    assert (wrong.exit_code, "expires_in_days" in wrong.stderr) == (2, True)


def test_projects_and_the_audit_log(home: Path) -> None:
    assert cli("project", "set", "vision", "--max-trials", "4", "--device-hours", "2.5").exit_code == 0
    assert cli("project", "set", "vision", "--device-hours", "-1").exit_code == 0
    vision = json.loads(cli("project", "list", "--json").stdout)[1]
    assert (vision["name"], vision["max_concurrent_trials"], vision["device_hours"]) == ("vision", 4, None)
    entries = json.loads(cli("audit-log", "--target", "vision", "--json").stdout)
    assert [(entry["action"], entry["actor"]) for entry in entries] == [
        ("project.set", "home"), ("project.create", "home"),
    ]  # fmt: skip
    assert "project.create" in cli("audit-log").stdout
    assert cli("project", "set", "Not a name").exit_code == 2


def test_the_first_token_without_a_service(tmp_path: Path) -> None:
    env = {"MUTRANSFER_HOME": str(tmp_path), "MUTRANSFER_HOST": "0.0.0.0", "MUTRANSFER_EMBEDDED": "false"}
    early = cli("token", "create", "first", "--scope", "admin", "--local", **env)
    assert (early.exit_code, "mutransfer db upgrade" in early.stderr) == (2, True)
    assert cli("db", "upgrade", **env).exit_code == 0
    secret = cli("token", "create", "first", "--scope", "admin", "--local", **env).stdout.strip()
    settings = Settings(home=tmp_path, embedded=False)
    with capture_logs(), served(create_app(settings)) as url:
        assert cli("whoami", "--url", url).exit_code == 1
        assert cli("whoami", "--url", url, MUTRANSFER_TOKEN=secret).stdout == "first: admin, all projects\n"
        entries = json.loads(cli("audit-log", "--url", url, "--json", MUTRANSFER_TOKEN=secret).stdout)
        assert [(entry["action"], entry["actor"]) for entry in entries] == [("token.create", "shell")]
        assert cli("token", "revoke", entries[0]["target"], "--local", **env).exit_code == 0
