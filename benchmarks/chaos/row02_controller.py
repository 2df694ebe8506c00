"""Row 2: kill -9 of the controller while clients submit with idempotency keys and try again."""

from collections.abc import Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
import threading
import time

from benchmarks.chaos.figures import Figure, Row, at_least, exactly, told
from benchmarks.chaos.harness import Lab, Site, kill, wait_until
from mutransfer.errors import TransientError
from service.client import Client
from service.ports import free_port
from service.processes import Child
from tests.study_builders import document

CLIENTS = 4
STUDIES = "SELECT count(*) FROM studies"


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of it."""

    kills: int
    submissions: int


class Clients:
    """Threads that submit until every key has been answered, each answer kept."""

    def __init__(self, url: str, keys: Sequence[str]) -> None:
        self._url = url
        self._todo: SimpleQueue[str] = SimpleQueue()
        for key in keys:
            self._todo.put(key)
        self.answers: dict[str, str] = {}
        self.repeats = 0
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(CLIENTS)]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait for the last answer."""
        for thread in self._threads:
            thread.join(timeout=300)

    def _work(self) -> None:
        with Client(self._url) as client:
            while True:
                try:
                    key = self._todo.get_nowait()
                except Empty:
                    return
                self.answers[key] = self._submit(client, key)

    def _submit(self, client: Client, key: str) -> str:
        while True:
            try:
                return client.submit(document(name=key), idempotency_key=key).id
            except TransientError:
                self.repeats += 1
                time.sleep(0.1)


def run(lab: Lab, size: Size) -> list[Figure]:
    """Kill each time after its share of the submissions, a random moment into the next ones."""
    port = str(free_port())
    with lab.site(MUTRANSFER_PORT=port) as site:
        controller = site.spawn("controller")
        clients = Clients(f"http://127.0.0.1:{port}", [f"key-{n}" for n in range(size.submissions)])
        clients.start()
        kills = 0
        while kills < size.kills:
            wanted = (kills + 1) * size.submissions // (size.kills + 1)
            wait_until(lambda n=wanted: site.count(STUDIES) >= n, what=f"{wanted} studies", every=0.01)  # type: ignore[misc]
            time.sleep(lab.rng.uniform(0.0, 0.1))
            controller = _restart(site, controller)
            kills += 1
            lab.say(f"kill {kills}: {site.count(STUDIES)} studies")
        clients.join()
        again = Clients(f"http://127.0.0.1:{port}", list(clients.answers))
        again.start()
        again.join()
        studies, keys = site.count(STUDIES), site.count("SELECT count(*) FROM idempotency")
        leases = site.count("SELECT count(*) FROM leases")
    return [
        at_least("kills", kills, size.kills),
        exactly("submissions answered", len(clients.answers), size.submissions),
        exactly("studies", studies, size.submissions),
        exactly("keys", keys, size.submissions),
        exactly("leases", leases, size.submissions),
        exactly(
            "keys answered otherwise when sent again",
            sum(again.answers.get(k) != v for k, v in clients.answers.items()),
            0,
        ),
        told("submissions that a client's own retries did not bring through", clients.repeats),
    ]


def _restart(site: Site, controller: Child) -> Child:
    kill([controller.pid])
    controller.sweep()
    return site.spawn("controller")


ROW = Row(
    number=2,
    fault="kill -9 of the controller under keyed submissions with client retry",
    databases=("sqlite", "postgresql"),
    run=run,
    long=Size(kills=20, submissions=200),
    short=Size(kills=2, submissions=30),
)
