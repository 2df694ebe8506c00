"""Row 13: a node of the Ray cluster disappears while trials run on it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
import secrets
import time

from benchmarks.chaos.figures import Figure, Row, at_least, exactly, told
from benchmarks.chaos.harness import ENDED, Lab, Site, is_running, outcome, stub_study, wait_until
from benchmarks.chaos.stub_optimizer import Trial, read_steps

STEPS = 40
Remove = Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of it: nodes removed, one after the other, each replaced; `rates` × 4 trials of `seconds`."""

    removals: int
    rates: int
    seconds: float


CLUSTER = """
from pathlib import Path
import os, sys, time
from workers.ray_environment import prepare_environment
prepare_environment("127.0.0.1:0")
# Ours is for the Ray that we start on one machine: its only node never dies. A cluster's head has Ray's own.
del os.environ["RAY_health_check_failure_threshold"]
from ray.cluster_utils import Cluster
folder = Path(sys.argv[1])
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
cluster.wait_for_nodes()
(folder / "removed").touch()
(folder / "address.part").write_text(cluster.address)
(folder / "address.part").rename(folder / "address")
while True:
    time.sleep(0.05)
    if (folder / "remove").exists():
        node = nodes.pop(0)
        cluster.remove_node(node, allow_graceful=False)
        if not node.any_processes_alive():
            with (folder / "removed").open("a") as file:
                print(node.unique_id, file=file)
        (folder / "remove").unlink()
        nodes.append(cluster.add_node(num_cpus=1))
"""


def run(lab: Lab, size: Size) -> list[Figure]:
    """Two nodes of one CPU each; the older one goes while both train."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
    with lab.site(**token, MUTRANSFER_CHECKPOINT_SECONDS="0.5") as site, _cluster(site) as (address, remove):
        site.environment["MUTRANSFER_RAY_ADDRESS"] = address
        spec = stub_study(site, rates=size.rates, steps=STEPS, seconds=size.seconds)
        site.submit(spec)
        site.spawn("dispatcher")
        hit: set[Trial] = set()
        waits = []
        for number in range(size.removals):
            waits.append(_two_at_once(site))
            hit |= _remove_one(site, remove)
            lab.say(f"removal {number + 1}, both nodes trained after {waits[-1]:.1f} s: {len(hit)} trials hit so far")
        site.wait_ended(1)
        found, steps = outcome(site), read_steps(site.steps)
        removed = set((site.home / "removed").read_text().splitlines())
    elsewhere = sum(len({step.pid for step in steps if step.trial == trial}) > 1 for trial in hit)
    return [
        at_least("nodes removed", len(removed), size.removals),
        at_least("trials that ran there", len(hit), size.removals),
        exactly("of these, finished in another process", elsewhere, len(hit)),
        exactly("results", found["results"], 4 * size.rates),
        exactly("trials given up", found["given up"], 0),
        exactly("studies completed", found["completed"], 1),
        exactly("attempts counted as failures of a trial", found["failed attempts"], 0),
        told("slowest start or return to a trial on each node, s", max(waits)),
    ]


def _two_at_once(site: Site) -> float:
    """Wait until both nodes train; returns how long it took (s)."""
    since, known = time.monotonic(), len(read_steps(site.steps))
    wait_until(lambda: len(_training(site, known)) >= 2 or site.count(ENDED), what="two trials at once", seconds=300)
    if site.count(ENDED):
        raise TimeoutError("the study ended before every node was removed")
    return time.monotonic() - since


def _remove_one(site: Site, remove: Remove) -> set[Trial]:
    """Returns the trials whose processes went with the node."""
    known = len(read_steps(site.steps))
    wait_until(lambda: len(_training(site, known)) >= 2, what="two trials in the middle", seconds=60)
    before = _training(site, known)
    remove()
    wait_until(lambda: any(not is_running(pid) for pid in before), what="the end of the node's processes", seconds=60)
    time.sleep(0.5)
    return {trial for pid, trial in before.items() if not is_running(pid)}


def _training(site: Site, known: int) -> dict[int, Trial]:
    """Trials in the middle, by process: those seen since `known` that are not about to end."""
    last = {step.pid: step for step in read_steps(site.steps)[known:]}
    return {pid: step.trial for pid, step in last.items() if step.step < STEPS // 2 and is_running(pid)}


@contextmanager
def _cluster(site: Site) -> Iterator[tuple[str, Remove]]:
    """A Ray cluster of two nodes beside a head without CPUs; its address, and what removes the older node."""
    child = site.python("-c", CLUSTER, str(site.home), name="cluster")
    address, asked = site.home / "address", site.home / "remove"

    def remove() -> None:
        asked.touch()
        wait_until(lambda: not asked.exists(), what="the removal of a node", seconds=120)

    try:
        wait_until(address.exists, what="the Ray cluster", seconds=300)
        yield address.read_text(), remove
    finally:
        child.sweep()


ROW = Row(
    number=13,
    fault="a Ray node removed abruptly while its trials run",
    databases=("sqlite", "postgresql"),
    run=run,
    long=Size(removals=5, rates=15, seconds=3.0),
    short=Size(removals=2, rates=5, seconds=2.0),
)
