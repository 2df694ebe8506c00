"""HTTP load on a controller of this machine: one reader, or requests that arrive at a fixed rate. Times in seconds."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
import http.client
import os
from pathlib import Path
import queue
import sys
import threading
import time

from service.ports import free_port
from service.processes import Child, end_all

START_SECONDS = 60.0
CONNECTIONS = 16


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Latencies of one kind of request, sorted, in seconds."""

    seconds: tuple[float, ...]

    def percentile(self, share: float) -> float:
        """The smallest latency that `share` of the requests stayed within."""
        return self.seconds[min(len(self.seconds) - 1, int(share * len(self.seconds)))]


@contextmanager
def controller(database_url: str, home: Path) -> Iterator[int]:
    """A real controller process; yields its port."""
    port = free_port()
    env = {name: value for name, value in os.environ.items() if not name.startswith("MUTRANSFER_")}
    env |= {"MUTRANSFER_HOME": str(home), "MUTRANSFER_DATABASE_URL": database_url, "MUTRANSFER_PORT": str(port)}
    env |= {"MUTRANSFER_RATE_LIMIT": "10000"}  # the benchmark is one caller with the requests of many
    with (home / "controller.log").open("wb") as log:
        child = Child((sys.executable, "-m", "service.cli", "controller"), env=env, log=log)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _is_up(port):
            if child.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the controller did not start:\n{(home / 'controller.log').read_text()[-2000:]}")
            time.sleep(0.1)
        yield port
    finally:
        end_all([child], grace_seconds=10.0)


def _is_up(port: int) -> bool:
    try:
        return Connection(port).get("/healthz") is not None
    except OSError:
        return False


class Connection:
    """One connection that is kept open."""

    def __init__(self, port: int) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=30.0)

    def get(self, path: str) -> bytes:
        """The body. Raises RuntimeError for any answer but 200."""
        self._http.request("GET", path)
        answer = self._http.getresponse()
        body = answer.read()
        if answer.status != http.client.OK:
            raise RuntimeError(f"GET {path}: {answer.status} {body[:500]!r}")
        return body

    def close(self) -> None:
        """Close it."""
        self._http.close()


def one_reader(port: int, paths: Sequence[str], *, warm: int = 3) -> Sample:
    """Each path once, one after another; the first `warm` are asked before the clock runs."""
    connection = Connection(port)
    for path in paths[:warm]:
        connection.get(path)
    taken = []
    for path in paths:
        begun = time.perf_counter()
        connection.get(path)
        taken.append(time.perf_counter() - begun)
    connection.close()
    return Sample(seconds=tuple(sorted(taken)))


def offered(port: int, paths: Mapping[str, Sequence[str]], *, rate: float, seconds: float) -> dict[str, Sample]:
    """Requests of all kinds in turn, arriving `rate` a second whether or not earlier ones were answered.

    A latency counts from the moment of arrival, so that waiting for a busy service is not left out.
    """
    arrivals: queue.SimpleQueue[tuple[str, str, float] | None] = queue.SimpleQueue()
    taken: dict[str, list[float]] = {kind: [] for kind in paths}
    failures: list[BaseException] = []

    def work() -> None:
        connection = Connection(port)
        while (arrival := arrivals.get()) is not None:
            kind, path, due = arrival
            try:
                connection.get(path)
            except (OSError, RuntimeError, http.client.HTTPException) as error:
                failures.append(error)
                return
            taken[kind].append(time.perf_counter() - due)
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    kinds, begun = list(paths), time.perf_counter()
    for number in range(int(rate * seconds)):
        due = begun + number / rate
        time.sleep(max(0.0, due - time.perf_counter()))
        kind = kinds[number % len(kinds)]
        arrivals.put((kind, paths[kind][number // len(kinds) % len(paths[kind])], due))
    for _ in threads:
        arrivals.put(None)
    for thread in threads:
        thread.join()
    if failures:
        raise RuntimeError(f"{len(failures)} requests failed, such as: {failures[0]}") from failures[0]
    return {kind: Sample(seconds=tuple(sorted(found))) for kind, found in taken.items()}
