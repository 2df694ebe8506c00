"""Large, endless and slow bodies against a real server: what the socket does matters here."""

from collections.abc import Iterator
import http.client
import resource
import socket
import time
from urllib.parse import urlsplit

import httpx
import pytest

from service import bodies
from service.app import create_app
from service.settings import Settings
from tests import study_builders as build
from tests.integration.api_fixtures import STUDIES, served

JSON = {"Content-Type": "application/json"}
FIFTY_MEGABYTES = 50 << 20
QUICK_SECONDS = 8.0  # of which the server spends two at most, whatever the machine


@pytest.fixture
def url(api_settings: Settings) -> Iterator[str]:
    with served(create_app(api_settings)) as address:
        yield address


def _chunks(total: int) -> Iterator[bytes]:
    for _ in range(total // (1 << 16)):
        yield b"x" * (1 << 16)


@pytest.mark.parametrize("chunked", [False, True], ids=["content-length", "chunked"])
def test_fifty_megabytes_are_refused_quickly(url: str, chunked: bool) -> None:
    body = _chunks(FIFTY_MEGABYTES) if chunked else b"x" * FIFTY_MEGABYTES
    started = time.monotonic()
    response = httpx.post(f"{url}{STUDIES}", content=body, headers=JSON)
    assert time.monotonic() - started < QUICK_SECONDS
    assert response.status_code == 413
    assert response.json()["detail"] == "the body may have 1048576 bytes at most"
    assert httpx.get(f"{url}{STUDIES}").json()["items"] == []


def test_an_announced_large_body_is_refused_before_it_is_sent(url: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    connection.putrequest("POST", STUDIES)
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", str(FIFTY_MEGABYTES))
    connection.endheaders()
    started = time.monotonic()
    assert connection.getresponse().status == 413
    assert time.monotonic() - started < 1.0
    connection.close()


def _send_until_refused(stream: socket.socket, block: bytes, seconds: float) -> None:
    """Raises ConnectionError when the server hangs up."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        stream.sendall(block)


def test_an_endless_body_is_cut_off(url: str) -> None:
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=10) as stream:
        head = f"POST {STUDIES} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nTransfer-Encoding: chunked\r\n"
        stream.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode())
        with pytest.raises(ConnectionError):
            _send_until_refused(stream, b"10000\r\n" + b"x" * 0x10000 + b"\r\n", seconds=3 * QUICK_SECONDS)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 64 * 1024  # KiB


def test_a_body_that_never_arrives_is_given_up(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "READ_SECONDS", 0.3)
    monkeypatch.setattr(bodies, "LINGER_SECONDS", 0.1)
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    connection.putrequest("POST", STUDIES)
    connection.putheader("Content-Length", "1000")
    connection.endheaders()
    connection.send(b"{")
    assert connection.getresponse().status == 408
    connection.close()


def test_a_body_of_exactly_the_limit_is_read(url: str) -> None:
    whole = build.document()
    text = httpx.Request("POST", url, json=whole).content
    body = text + b" " * ((1 << 20) - len(text))
    assert httpx.post(f"{url}{STUDIES}", content=body, headers=JSON).status_code == 201
    assert httpx.post(f"{url}{STUDIES}", content=body + b" ", headers=JSON).status_code == 413


def test_the_server_goes_on_after_refusals(url: str) -> None:
    with httpx.Client(base_url=url) as client:
        for _ in range(3):
            assert client.post(STUDIES, content=b"x" * (2 << 20), headers=JSON).status_code == 413
            assert client.get(STUDIES).status_code == 200
