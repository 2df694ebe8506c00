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


def in_turns(readers: Sequence[tuple[int, Sequence[str]]], *, turn: int = 5, warm: int = 3) -> list[Sample]:
    """One reader a port asks for its paths one after another, `turn` of them before the next reader has its turn.

    The first `warm` are asked before the clock runs.
    """
    connections = [Connection(port) for port, _ in readers]
    for connection, (_, paths) in zip(connections, readers, strict=True):
        for path in paths[:warm]:
            connection.get(path)
    taken: list[list[float]] = [[] for _ in readers]
    for first in range(0, max(len(paths) for _, paths in readers), turn):
        for connection, (_, paths), times in zip(connections, readers, taken, strict=True):
            for path in paths[first : first + turn]:
                begun = time.perf_counter()
                connection.get(path)
                times.append(time.perf_counter() - begun)
    for connection in connections:
        connection.close()
    return [Sample(seconds=tuple(sorted(times))) for times in taken]


def offered_in_turns(
    targets: Sequence[tuple[int, Mapping[str, Sequence[str]]]], *, rate: float, seconds: float, turn: float = 2.5
) -> list[dict[str, Sample]]:
    """`offered` to each port for `seconds` in all, `turn` seconds before the next has its turn."""
    taken: list[dict[str, list[float]]] = [{kind: [] for kind in paths} for _, paths in targets]
    for _ in range(max(1, round(seconds / turn))):
        for (port, paths), times in zip(targets, taken, strict=True):
            for kind, sample in offered(port, paths, rate=rate, seconds=turn).items():
                times[kind].extend(sample.seconds)
    return [{kind: Sample(seconds=tuple(sorted(found))) for kind, found in times.items()} for times in taken]


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
