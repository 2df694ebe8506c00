"""One attempt to deliver, by kind of channel. Each returns what the other side answered, or raises DeliveryError.

Webhooks carry `X-Mutransfer-Signature: t=SECONDS,v1=HEX`, HEX the HMAC-SHA256 of `SECONDS.BODY` under the channel's
secret, and `X-Mutransfer-Delivery`, the same for every repetition of a message.
"""

from email.message import EmailMessage
from email.utils import formatdate, make_msgid
import hmac
import json
import smtplib
import ssl
import time
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import httpx

from mutransfer.errors import MutransferError, SpecError
from service.db.channels import Delivery
from service.db.states_schedules import ChannelKind
from service.notify.targets import recipients, resolve, split_url
from service.settings import Settings

TIMEOUT_SECONDS = 10.0
USER_AGENT = "mutransfer"
_PORTS = {"http": 80, "https": 443, "smtp": 25, "smtp+starttls": 587, "smtps": 465}


class DeliveryError(MutransferError):
    """A message that did not arrive; the message says why."""


def send(delivery: Delivery, settings: Settings) -> str:
    """Deliver one message. Raises DeliveryError."""
    payload = with_addresses(delivery.payload, settings.public_url.rstrip("/") or settings.url)
    try:
        if delivery.kind is ChannelKind.EMAIL:
            return _mail(delivery, payload, settings)
        body = payload if delivery.kind is ChannelKind.WEBHOOK else slack_body(payload)
        return _post(delivery, json.dumps(body, ensure_ascii=False).encode(), settings)
    except (httpx.HTTPError, httpx.InvalidURL, smtplib.SMTPException, OSError, UnicodeError, SpecError) as error:
        raise DeliveryError(f"{type(error).__name__}: {error}") from error


def with_addresses(payload: Any, base: str) -> dict[str, Any]:
    """The message with links that lead to this service."""
    links = {name: None if path is None else base + path for name, path in payload["links"].items()}
    return {**payload, "links": links}


def signature(secret: str, seconds: int, body: bytes) -> str:
    """The value of the signature header."""
    signed = hmac.new(secret.encode(), f"{seconds}.".encode() + body, "sha256").hexdigest()
    return f"t={seconds},v1={signed}"


def slack_body(payload: dict[str, Any]) -> dict[str, Any]:
    """The message as Slack's incoming webhooks take it: `text` for notifications, `blocks` for the channel."""
    lines = plain_lines(payload)
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": payload["title"][:150]}}
    ]  # fmt: skip
    blocks += [
        {"type": "section", "text": {"type": "mrkdwn", "text": _escaped(line)[:3000]}} for line in lines[:10]
    ]  # fmt: skip
    links = [f"<{url}|{name}>" for name, url in payload["links"].items() if url]
    blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": " · ".join(links)}]})
    return {"text": _escaped("\n".join([payload["title"], *lines])), "blocks": blocks}


def plain_lines(payload: dict[str, Any]) -> list[str]:
    """The reasons as sentences."""
    more = payload["more_reasons"]
    return [*payload["reasons"], *([f"and {more} more"] if more else [])]


def _escaped(text: str) -> str:
    """Slack's three control characters."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _post(delivery: Delivery, body: bytes, settings: Settings) -> str:
    parts = split_url(delivery.target)
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    address = resolve(host, port, allow_private=settings.notify_private)
    headers = {
        "Content-Type": "application/json", "User-Agent": USER_AGENT, "Host": _netloc(parts),
        "X-Mutransfer-Event": str(delivery.payload["event"]), "X-Mutransfer-Delivery": str(delivery.id),
    }  # fmt: skip
    if delivery.secret:
        headers["X-Mutransfer-Signature"] = signature(delivery.secret, int(time.time()), body)
    shown = f"[{address}]" if ":" in address else address
    url = httpx.URL(parts._replace(netloc=f"{shown}:{port}").geturl())
    # To the address that was checked, under the name that was asked for. No redirects, no proxies: both lead elsewhere.
    with httpx.Client(timeout=TIMEOUT_SECONDS, trust_env=False, follow_redirects=False) as client:
        answer = client.post(url, content=body, headers=headers, extensions={"sni_hostname": host})
    said = f"{answer.status_code} {answer.reason_phrase}".strip()
    if not answer.is_success:
        raise DeliveryError(said)
    return said


def _netloc(parts: SplitResult) -> str:
    host = parts.hostname or ""
    shown = f"[{host}]" if ":" in host else host
    return shown if parts.port is None else f"{shown}:{parts.port}"


def _mail(delivery: Delivery, payload: dict[str, Any], settings: Settings) -> str:
    if not settings.smtp_url:
        raise DeliveryError("no mail server is configured: set MUTRANSFER_SMTP_URL")
    message = _message(delivery, payload, settings)
    server = urlsplit(settings.smtp_url.get_secret_value())
    with _connected(server) as connection:
        if server.username:
            connection.login(unquote(server.username), unquote(server.password or ""))
        refused = connection.send_message(message)
    if refused:
        raise DeliveryError(f"refused for {', '.join(refused)}")
    return "accepted by the mail server"


def _message(delivery: Delivery, payload: dict[str, Any], settings: Settings) -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = f"[mutransfer] {payload['title']}"
    message["From"] = settings.smtp_from
    message["To"] = ", ".join(recipients(delivery.target))
    message["Date"] = formatdate(localtime=False)
    message["Message-ID"] = make_msgid(idstring=f"delivery-{delivery.id}", domain="mutransfer.invalid")
    message["X-Mutransfer-Delivery"] = str(delivery.id)
    links = [f"{name}: {url}" for name, url in payload["links"].items() if url]
    message.set_content("\n".join([payload["title"], "", *plain_lines(payload), "", *links, ""]))
    return message


def _connected(server: SplitResult) -> smtplib.SMTP:
    host, port = server.hostname or "", server.port or _PORTS[server.scheme]
    if server.scheme == "smtps":
        return smtplib.SMTP_SSL(host, port, timeout=TIMEOUT_SECONDS, context=ssl.create_default_context())
    connection = smtplib.SMTP(host, port, timeout=TIMEOUT_SECONDS)
    if server.scheme == "smtp+starttls":
        try:
            connection.starttls(context=ssl.create_default_context())
        except (smtplib.SMTPException, OSError):
            connection.close()
            raise
    return connection
