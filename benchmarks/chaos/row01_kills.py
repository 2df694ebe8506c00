"""Row 1: kill -9 of the dispatcher, the driver or both, again and again, while trials run."""

from dataclasses import dataclass
import time

from benchmarks.chaos.figures import Figure, Row, at_least, at_most, exactly, told
from benchmarks.chaos.harness import Lab, Site, kill, outcome, results, stub_study, wait_until
from benchmarks.chaos.stub_optimizer import executions, read_steps
from service.processes import Child

CONCURRENCY = 2
TARGETS = ("dispatcher", "driver", "both")


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of it. Trials are `rates` × 4 widths."""

    kills: int
    rates: int
    seconds: float


def run(lab: Lab, size: Size) -> list[Figure]:
    """Kill at random moments: after so many further results, or while everything is still starting."""
    trials = 4 * size.rates
    with lab.site(MUTRANSFER_CHECKPOINT_SECONDS="0.3") as site:
        site.submit(stub_study(site, rates=size.rates, seconds=size.seconds))
        dispatcher, kills, seen = site.spawn("dispatcher"), 0, dict[str, str]()
        changed = 0
        while kills < size.kills:
            _wait_for_moment(lab, site, trials, left=size.kills - kills)
            target = TARGETS[kills % len(TARGETS)]
            dispatcher = _strike(site, dispatcher, target)
            kills += 1
            now = results(site)
            changed += sum(now.get(key) != result for key, result in seen.items())
            seen = now
            lab.say(f"kill {kills}: {target}, {len(now)} of {trials} results")
        site.wait_ended(1)
        changed += sum(results(site).get(key) != result for key, result in seen.items())
        found, begun = outcome(site), executions(read_steps(site.steps))
    return [
        at_least("kills", kills, size.kills),
        exactly("results", found["results"], trials),
        exactly("results lost (planned without one)", found["planned"] - found["results"], 0),
        exactly("results told more than once", found["told"] + found["events"] - 2 * trials, 0),
        exactly("finished results that changed", changed, 0),
        exactly("studies completed", found["completed"], 1),
        exactly("attempts counted as failures of a trial", found["failed attempts"], 0),
        at_most("re-executions", begun - trials, kills * CONCURRENCY),
        told("executions", begun),
    ]


def _wait_for_moment(lab: Lab, site: Site, trials: int, *, left: int) -> None:
    """Until a few more trials have results, as many as leave some for the kills to come; then a little longer."""
    have = len(results(site))
    more = min(lab.rng.choice((0, 1, 2)), max(0, (trials - have - 1) // max(1, left)))
    wait_until(lambda: len(results(site)) >= have + more, what="a further result")
    wait_until(lambda: site.driver_pids(), what="a driver")
    time.sleep(lab.rng.uniform(0.0, 1.0 if more else 6.0))


def _strike(site: Site, dispatcher: Child, target: str) -> Child:
    if target in ("driver", "both"):
        kill(site.driver_pids())
    if target in ("dispatcher", "both"):
        kill([dispatcher.pid])
        dispatcher.poll()
        return site.spawn("dispatcher")
    return dispatcher


ROW = Row(
    number=1,
    fault="kill -9 of dispatcher, driver or both",
    databases=("sqlite", "postgresql"),
    run=run,
    long=Size(kills=20, rates=15, seconds=0.5),
    short=Size(kills=2, rates=3, seconds=0.3),
)
