"""Notifications over real sockets: a web server and a mail server of this machine, failing as they please."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
import hmac
from http.server import BaseHTTPRequestHandler, HTTPServer
import json
import threading
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
import pytest

from service.db import channels
from service.db.channels import Deliveries, Delivery
from service.db.session import reading, transact
from service.db.states_schedules import DeliveryState
from service.db.tables_schedules import ChannelRow, DeliveryRow
from service.entrypoints import run_scheduler
from service.notify import notifier
from service.notify.messages import test_message as made_message
from service.notify.notifier import Notifier, delay_after
from service.notify.senders import DeliveryError, send
from service.ports import free_port
from service.settings import Settings
from tests.integration.api_fixtures import Api

SECRET = "0123456789abcdef"


class Receiver:
    """What a web server got, and what it answers in turn; the last answer stays."""

    def __init__(self) -> None:
        self.answers = [200]
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.url = ""

    def answer(self, headers: dict[str, str], body: bytes) -> int:
        self.headers.append(headers)
        self.bodies.append(body)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@contextmanager
def web_server() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = receiver.answer({name.lower(): value for name, value in self.headers.items()}, body)
            self.send_response(status)
            self.send_header("Location", f"{receiver.url}/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver.url = f"http://127.0.0.1:{server.server_port}/hook"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with web_server() as made:
        yield made


class World:
    """Channels in a real database, and a notifier whose next attempt is due at once."""

    def __init__(self, api: Api) -> None:
        self.api, self.sessions = api, api.sessions
        self.settings = api.settings.model_copy(update={"notify_private": True, "public_url": "https://mu.example/"})
        self.deliveries = Deliveries(self.sessions)

    def channel(self, kind: str, target: str, secret: str = "") -> ChannelRow:
        values = {
            "name": kind, "project": "default", "kind": kind, "target": target, "secret": secret,
            "events": {"of": ["flagged"]},
        }  # fmt: skip
        return transact(self.sessions, lambda s: channels.create(s, values))

    def enqueue(self, channel: ChannelRow, event: str = "night/1/flagged") -> bool:
        payload = made_message("ops", "default") | {
            "title": "nightly: the night of today differs from its baseline",
            "reasons": ["adamw-mup at 16: the optimum changed by +0.5 <octaves>"],
        }
        return transact(self.sessions, lambda s: channels.add_delivery(s, channel, event, payload))

    def drain(self, *, delay: Callable[[int], float | None] = lambda _n: 0.0, settings: Settings | None = None) -> int:
        chosen = settings or self.settings
        return Notifier(self.deliveries, lambda d: send(d, chosen), delay=delay).drain()

    def row(self) -> DeliveryRow:
        with reading(self.sessions) as session:
            return session.query(DeliveryRow).order_by(DeliveryRow.id.desc()).first()  # type: ignore[return-value]


@pytest.fixture
def world(api: Api) -> World:
    return World(api)


def test_a_webhook_is_signed_and_carries_the_message(world: World, receiver: Receiver) -> None:
    channel = world.channel("webhook", receiver.url, SECRET)
    assert world.enqueue(channel)
    assert not world.enqueue(channel)  # the same fact, once
    assert world.drain() == 1
    (body,), (headers,) = receiver.bodies, receiver.headers
    fields = dict(part.split("=", 1) for part in headers["x-mutransfer-signature"].split(","))
    wanted = hmac.new(SECRET.encode(), fields["t"].encode() + b"." + body, "sha256").hexdigest()
    assert fields["v1"] == wanted
    assert headers["x-mutransfer-delivery"] == str(world.row().id)
    assert headers["host"] == receiver.url.split("/")[2]
    told = json.loads(body)
    assert (told["version"], told["title"]) == (1, "nightly: the night of today differs from its baseline")
    assert told["links"]["night"] == "https://mu.example/schedules"
    assert world.row().state == DeliveryState.DELIVERED
    assert world.drain() == 0


def test_what_fails_is_tried_again_under_the_same_id_and_logged(world: World, receiver: Receiver) -> None:
    receiver.answers = [500, 429, 204]
    world.enqueue(world.channel("webhook", receiver.url, SECRET))
    assert [world.drain() for _ in range(4)] == [0, 0, 1, 0]
    assert len({headers["x-mutransfer-delivery"] for headers in receiver.headers}) == 1
    (shown,) = world.api.get("/api/v1/deliveries").json()["items"]
    assert (shown["state"], shown["attempts"], shown["error"]) == ("delivered", 3, "")
    assert [entry["said"][:3] for entry in shown["log"]] == ["500", "429", "204"]


def test_a_server_that_is_away_costs_an_attempt_and_nothing_else(world: World) -> None:
    world.enqueue(world.channel("webhook", f"http://127.0.0.1:{free_port()}/", SECRET))
    assert world.drain(delay=delay_after) == 0
    row = world.row()
    assert (row.state, row.attempts) == (DeliveryState.WAITING, 1)
    assert "ConnectError" in row.error
    assert world.drain(delay=delay_after) == 0  # not due yet
    assert world.row().attempts == 1


def test_a_notifier_that_dies_between_claim_and_answer_is_followed_by_another(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.enqueue(world.channel("webhook", receiver.url, SECRET))

    class KilledError(BaseException):
        """Stands for kill -9."""

    def dying(delivery: Delivery) -> str:
        send(delivery, world.settings)
        raise KilledError

    monkeypatch.setattr(notifier, "HOLD_SECONDS", 0.2)
    with pytest.raises(KilledError):
        Notifier(world.deliveries, dying).drain()
    deadline = threading.Event()
    while world.drain() == 0:
        assert not deadline.wait(0.05)
        assert len(receiver.bodies) < 3
    assert receiver.bodies[0] == receiver.bodies[1]
    assert receiver.headers[0]["x-mutransfer-delivery"] == receiver.headers[1]["x-mutransfer-delivery"]


@pytest.mark.parametrize("target", ["https://a..b/x", "https://bücher.example/", "http://127.0.0.1/\x7f"])
def test_a_target_that_an_older_version_took_costs_an_attempt_only(world: World, target: str) -> None:
    world.enqueue(world.channel("webhook", target, SECRET))
    assert world.drain(delay=delay_after) == 0
    assert (world.row().state, world.row().attempts) == (DeliveryState.WAITING, 1)
    assert "target" in world.row().error


def test_a_delivery_that_breaks_the_sender_does_not_stop_the_others(world: World, receiver: Receiver) -> None:
    channel = world.channel("webhook", receiver.url, SECRET)
    world.enqueue(channel, "night/1/flagged")
    world.enqueue(channel, "night/2/flagged")
    broken = world.deliveries.due()[0]

    def attempt(delivery: Delivery) -> str:
        if delivery.id == broken:
            raise KeyError("links")
        return send(delivery, world.settings)

    assert Notifier(world.deliveries, attempt).drain() == 1
    found = {row["id"]: row for row in world.api.get("/api/v1/deliveries").json()["items"]}
    assert (found[broken]["state"], found[broken]["attempts"]) == ("waiting", 1)
    assert found[broken]["error"] == "KeyError: 'links'"
    assert len(receiver.bodies) == 1


def test_a_scheduler_whose_notifier_has_died_ends_with_its_error(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    def dying(_notifier: Notifier, _stop: threading.Event) -> None:
        raise RuntimeError("the notifier broke")

    monkeypatch.setattr(Notifier, "run", dying)
    monkeypatch.setattr("service.loops.stop_on_signals", threading.Event)
    monkeypatch.setattr("service.entrypoints.configure_logging", lambda _format: None)
    monkeypatch.setenv("MUTRANSFER_HOME", str(world.settings.home))
    with pytest.raises(RuntimeError, match="the notifier broke"):
        run_scheduler()


def test_two_notifiers_take_a_delivery_once(world: World) -> None:
    world.enqueue(world.channel("webhook", "http://127.0.0.1:9/", SECRET))
    (due,) = world.deliveries.due()
    assert world.deliveries.claim(due, 60.0) is not None
    assert world.deliveries.claim(due, 60.0) is None
    assert world.deliveries.due() == []


def test_after_the_last_attempt_it_is_given_up_and_a_person_may_send_it_again(
    world: World, receiver: Receiver
) -> None:  # fmt: skip
    receiver.answers = [500, 200]
    world.enqueue(world.channel("webhook", receiver.url, SECRET))
    assert world.drain(delay=lambda _n: None) == 0
    row = world.row()
    assert (row.state, row.attempts) == (DeliveryState.GIVEN_UP, 1)
    assert world.drain() == 0
    assert world.api.post(f"/api/v1/deliveries/{row.id}/retry").status_code == 200
    assert world.drain() == 1
    assert world.row().state == DeliveryState.DELIVERED


def test_pauses_double_up_to_an_hour_and_end_after_a_day() -> None:
    assert [delay_after(n) for n in (1, 2, 3, 10, 11, 31, 32)] == [5, 10, 20, 2560, 3600, 3600, None]
    total = sum(delay_after(n) or 0.0 for n in range(1, 33))
    assert 20 * 3600 < total < 26 * 3600


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_private_addresses_are_barred_when_sent_too(world: World, receiver: Receiver, host: str) -> None:
    world.enqueue(world.channel("webhook", receiver.url.replace("127.0.0.1", host), SECRET))
    barred = world.settings.model_copy(update={"notify_private": False})
    assert world.drain(settings=barred) == 0
    assert "not public" in world.row().error
    assert receiver.bodies == []


def test_a_redirect_is_an_answer_and_not_followed(world: World, receiver: Receiver) -> None:
    receiver.answers = [307]
    world.enqueue(world.channel("webhook", receiver.url, SECRET))
    assert world.drain() == 0
    assert world.row().error.startswith("307")
    assert len(receiver.bodies) == 1


def test_slack_gets_text_and_blocks_with_its_characters_escaped(world: World, receiver: Receiver) -> None:
    world.enqueue(world.channel("slack", receiver.url))
    assert world.drain() == 1
    (body,), (headers,) = receiver.bodies, receiver.headers
    told = json.loads(body)
    assert "x-mutransfer-signature" not in headers
    assert told["text"].startswith("nightly: the night of today differs")
    assert "+0.5 &lt;octaves&gt;" in told["text"]
    assert [block["type"] for block in told["blocks"]] == ["header", "section", "context"]
    assert "<https://mu.example/schedules|night>" in told["blocks"][2]["elements"][0]["text"]


class Mailbox:
    """A mail server's handler that keeps what it gets, or refuses."""

    def __init__(self) -> None:
        self.messages: list[tuple[list[str], EmailMessage]] = []
        self.refuses = False

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        if self.refuses:
            return "451 try again later"
        content = envelope.content if isinstance(envelope.content, bytes) else str(envelope.content).encode()
        message = message_from_bytes(content, policy=policy.default)
        assert isinstance(message, EmailMessage)
        self.messages.append((list(envelope.rcpt_tos), message))
        return "250 OK"


@pytest.fixture
def mailbox() -> Iterator[tuple[Mailbox, str]]:
    box = Mailbox()
    controller = Controller(box, hostname="127.0.0.1", port=free_port())
    controller.start()
    try:
        yield box, f"smtp://127.0.0.1:{controller.port}"
    finally:
        controller.stop()


def test_mail_arrives_with_subject_reasons_and_links(world: World, mailbox: tuple[Mailbox, str]) -> None:
    box, url = mailbox
    settings = Settings(home=world.settings.home, smtp_url=url, public_url="https://mu.example")  # type: ignore[arg-type]
    world.enqueue(world.channel("email", "a@example.org, b@example.org"))
    box.refuses = True
    assert world.drain(settings=settings) == 0
    assert "451" in world.row().error
    box.refuses = False
    assert world.drain(settings=settings) == 1
    ((recipients, message),) = box.messages
    assert recipients == ["a@example.org", "b@example.org"]
    assert message["Subject"] == "[mutransfer] nightly: the night of today differs from its baseline"
    assert message["X-Mutransfer-Delivery"] == str(world.row().id)
    text = message.get_content()
    assert "the optimum changed by +0.5" in text
    assert "night: https://mu.example/schedules" in text


def test_mail_without_a_server_says_what_to_set(world: World) -> None:
    world.enqueue(world.channel("email", "a@example.org"))
    (due,) = world.deliveries.due()
    claimed = world.deliveries.claim(due, 1.0)
    assert claimed is not None
    with pytest.raises(DeliveryError, match="MUTRANSFER_SMTP_URL"):
        send(claimed, world.settings)


@pytest.mark.parametrize("value", ["http://mail.example.org", "smtp://", "mail.example.org"])
def test_a_mail_servers_address_is_checked(value: str) -> None:
    with pytest.raises(ValueError, match="smtp"):
        Settings(smtp_url=value)  # type: ignore[arg-type]
