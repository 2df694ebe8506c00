"""Schedules, nights and channels through the API, the client and the command line, over the real application."""

from collections.abc import Callable, Iterator
import json
from typing import Any

from httpx import Response
import pytest
from typer.testing import CliRunner

from mutransfer.errors import ConflictError, NotFoundError, SpecError
from service import cli, cli_nightly, cli_schedules
from service.app import create_app
from service.client import Client
from service.db.tables_schedules import ScheduleRow
from service.schedules.scheduler import Scheduler
from tests import study_builders as build
from tests.integration.api_fixtures import Api, finish_study, served

SCHEDULES = "/api/v1/schedules"


def document(**changes: Any) -> dict[str, Any]:
    return {"name": "nightly", "cron": "30 2 * * *", "time_zone": "Europe/Berlin", "study": build.document()} | changes


def problems(response: Response) -> dict[str, str]:
    assert response.status_code == 422, response.text
    return {problem["field"]: problem["message"] for problem in response.json()["errors"]}


def printed(result: Any) -> Any:
    """The JSON on standard output; the service in this process logs there too."""
    lines = [line for line in result.stdout.splitlines() if not line.startswith("20")]
    return json.loads("\n".join(lines))


@pytest.fixture
def client(api: Api) -> Iterator[Client]:
    with served(create_app(api.settings)) as url, Client(url) as made:
        yield made


@pytest.fixture
def tick(api: Api) -> Callable[[], None]:
    return Scheduler(api.sessions).tick


def test_a_schedule_lives_from_creation_to_deletion(api: Api, client: Client) -> None:
    made = client.schedules.create(document())
    assert (made.project, made.paused, made.latest) == (build.spec().project, False, None)
    assert made.next_at == made.upcoming[0]
    assert len(made.upcoming) == 5
    assert all(slot.astimezone().minute == 30 for slot in made.upcoming)
    assert client.schedules.get("nightly") == made
    assert [found.id for found in client.schedules.all(project=made.project)] == [made.id]
    assert client.schedules.pause(made.id).next_at is None
    assert client.schedules.resume(made.id).next_at == made.next_at
    changed = client.schedules.change("nightly", {"cron": "0 4 * * 1", "time_zone": "UTC", "concurrency": "queue"})
    assert changed.next_at is not None
    assert (changed.next_at.hour, changed.next_at.weekday(), changed.concurrency.value) == (4, 0, "queue")
    client.schedules.delete("nightly")
    with pytest.raises(NotFoundError):
        client.schedules.get(made.id)


def test_what_is_wrong_is_named_and_nothing_is_made(api: Api) -> None:
    wrong = {
        "cron": ("61 2 * * *", "cron"), "time_zone": ("Mars/Olympus", "time_zone"),
        "study": (build.document(arms=[]), "study.arms"), "concurrency": ("pile up", "concurrency"),
        "extra": (1, "extra"), "name": ("", "name"),
    }  # fmt: skip
    for field, (value, named) in wrong.items():
        assert named in problems(api.post(SCHEDULES, json=document(**{field: value}))), field
    assert problems(api.post(SCHEDULES, json=document(cron="0 0 30 2 *")))["cron"].endswith("Bad day-of-month")
    assert problems(api.post(SCHEDULES, json=document(cron="* * * * * *")))["cron"]
    assert api.post(SCHEDULES, content=b"[", headers={"Content-Type": "application/json"}).status_code == 400
    assert api.get(SCHEDULES).json()["items"] == []


def test_a_template_that_this_version_takes_no_longer_is_told_and_fails_nights(
    api: Api, client: Client, tick: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_schedules, "connect", lambda _url: Client(client.url))
    made = client.schedules.create(document())
    with api.sessions.begin() as session:
        row = session.get_one(ScheduleRow, made.id)
        row.spec = {**row.spec, "widths": {**row.spec["widths"], "of_an_older_version": 1}}
        row.next_at = 1.0
    (listed,) = client.schedules.all()
    assert "of_an_older_version" in listed.refused
    assert listed.study["widths"]["of_an_older_version"] == 1
    assert "of_an_older_version" in CliRunner().invoke(cli.app, ["schedules", "show", made.id]).stdout
    page = api.get(f"/schedules/{made.id}")
    assert (page.status_code, "takes the study no longer" in page.text) == (200, True)
    assert api.get(f"{SCHEDULES}/{made.id}/trend").status_code == 200
    tick()
    night = client.schedules.get(made.id).latest
    assert night is not None
    assert (night.state.value, "of_an_older_version" in night.reason) == ("failed", True)
    assert client.schedules.change(made.id, {"study": build.document()}).refused == ""


def test_a_night_runs_now_is_judged_and_is_shown(
    api: Api, client: Client, tick: Callable[[], None]
) -> None:  # fmt: skip
    made = client.schedules.create(document())
    for number in (1, 2):
        night = client.schedules.run("nightly")
        assert (night.state.value, night.manual) == ("running", True)
        with pytest.raises(ConflictError, match="had not ended"):
            client.schedules.run("nightly")
        finish_study(api.drive())
        tick()
        assert client.schedules.get(made.id).latest is not None, number
    newest, first = client.schedules.nights("nightly", judgements=True).items
    assert (first.baseline_study_id, newest.baseline_study_id) == (None, first.study_id)
    assert newest.judgement is not None
    assert not newest.judgement.flagged
    keys = [figure.key for figure in newest.judgement.figures]
    trend = client.schedules.trend("nightly")
    assert [series.key for series in trend.series] == keys
    assert [len(series.points) for series in trend.series] == [2] * len(keys)
    page = client.schedules.nights("nightly", limit=1)
    following = client.schedules.nights("nightly", limit=1, cursor=page.next_cursor)
    assert [page.items[0].id, following.items[0].id] == [newest.id, first.id]
    pinned = client.schedules.pin("nightly", str(newest.study_id))
    assert (pinned.baseline_study_id, pinned.baseline_pinned) == (newest.study_id, True)
    assert client.schedules.unpin("nightly").baseline_study_id is None


def test_the_command_line_goes_the_same_way(
    api: Api, client: Client, tick: Callable[[], None], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (cli_schedules, cli_nightly):
        monkeypatch.setattr(module, "connect", lambda _url: Client(client.url))
    runner = CliRunner()

    def call(*arguments: str) -> Any:
        return runner.invoke(cli.app, arguments)

    (tmp_path / "study.json").write_text(json.dumps(build.document()))
    made = call("schedules", "create", str(tmp_path / "study.json"), "--cron", "30 2 * * *", "--name", "nightly")
    assert made.exit_code == 0, made.output
    assert call("nightly", "check", "nightly").exit_code == 1
    assert printed(call("schedules", "list", "--json"))[0]["name"] == "nightly"
    assert call("schedules", "run", "nightly").exit_code == 0
    assert call("nightly", "check", "nightly").exit_code == 1  # it still runs
    finish_study(api.drive())
    tick()
    checked = call("nightly", "check", "nightly", "--json")
    assert checked.exit_code == 0, checked.output
    assert printed(checked)["state"] == "judged"
    assert call("nightly", "check", "nightly", "--max-age-hours", "0").exit_code == 1
    with api.sessions.begin() as session:
        (row,) = session.query(ScheduleRow)
        row.spec, row.next_at = {**row.spec, "version": 99}, 1.0
    tick()
    refused = call("nightly", "check", "nightly")
    assert (refused.exit_code, "its study was refused" in refused.output) == (1, True)
    assert "first night" in call("schedules", "history", "nightly").stdout
    assert "optimum/adamw-mup/16" in call("schedules", "night", "nightly", "1").stdout
    assert call("nightly", "check", "unknown").exit_code == 2
    assert call("schedules", "delete", "nightly", "--yes").exit_code == 0


def test_channels_are_made_once_and_their_secrets_shown_once(api: Api, client: Client) -> None:
    made = client.channels.create({"name": "ops", "kind": "webhook", "target": "https://hooks.example.org/a/b?c=d"})
    assert made.secret is not None
    assert len(made.secret) >= 32
    (listed,) = client.channels.list().items
    assert (listed.secret, listed.target) == (None, "https://hooks.example.org/…")
    delivery = client.channels.test("ops")
    assert (delivery.state.value, delivery.event.startswith("test/")) == ("waiting", True)
    assert client.channels.deliveries(channel="ops", state="waiting").items == [delivery]
    assert client.channels.send_again(delivery.id).attempts == 0
    client.channels.delete("ops")
    assert client.channels.deliveries().items == []


@pytest.mark.parametrize(
    ("kind", "target", "field"),
    [
        ("webhook", "http://127.0.0.1:9/", "target"),
        ("webhook", "http://[::1]/", "target"),
        ("webhook", "http://169.254.169.254/latest/meta-data", "target"),
        ("webhook", "http://[64:ff9b::7f00:1]/", "target"),
        ("webhook", "https://a..b/x", "target"),
        ("webhook", f"https://{'a' * 64}.example.org/", "target"),
        ("webhook", "https://example.org/\x7f", "target"),
        ("webhook", "https://bücher.example/", "target"),
        ("slack", "ftp://example.org/", "target"),
        ("slack", "https://user:password@example.org/", "target"),
        ("webhook", "https://example.org/\nX: y", "target"),
        ("email", "a@example.org", "kind"),
    ],
)
def test_a_target_that_may_not_be_used_is_refused(client: Client, kind: str, target: str, field: str) -> None:
    with pytest.raises(SpecError) as refused:
        client.channels.create({"name": "x", "kind": kind, "target": target})
    assert [problem.field for problem in refused.value.problems] == [field]
