"""Row 11: trials that crash their process, hang, or lose themselves in NaN, among others that are well."""

from dataclasses import dataclass
import time

from benchmarks.chaos.figures import Figure, Row, at_least, at_most, exactly
from benchmarks.chaos.harness import ENDED, Lab, Site, is_running, outcome, stub_study, wait_until
from benchmarks.chaos.stub_optimizer import read_steps

MAX_ATTEMPTS = 3
WIDTHS = (8, 16, 24, 32)
LOW = -10.0
POISON_STEP = 3  # of the stub: the loss of the next one is NaN
HANGING = (LOW + 0.5, WIDTHS[0])


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of it: `rates` × 4 trials, of which three are poisoned (at the first of the widths)."""

    rates: int
    seconds: float
    timeout_seconds: float


def run(lab: Lab, size: Size) -> list[Figure]:
    """One study with one trial of each poison, through a real dispatcher."""
    poison = {"crash": [LOW], "hang": [LOW + 0.5], "nan": [LOW + 1.0]}
    with lab.site(MUTRANSFER_TRIAL_TIMEOUT_SECONDS=f"{size.timeout_seconds:g}") as site:
        site.submit(
            stub_study(site, rates=size.rates, widths=WIDTHS, seconds=size.seconds, poisoned_width=WIDTHS[0], **poison)
        )
        site.spawn("dispatcher")
        hangs = _watch(site)
        found = outcome(site)
        worst = site.count("SELECT max(attempts) FROM trials")
        survivors = site.count("SELECT count(*) FROM trials WHERE status = 'finished'")
        diverged = site.query("SELECT step FROM trials WHERE status = 'diverged'")
    return [
        exactly("studies completed", found["completed"], 1),
        exactly("other trials that finished", survivors, size.rates * len(WIDTHS) - 3),
        exactly("trials given up (crash, hang)", found["given up"], 2),
        at_most("attempts of a trial", worst, MAX_ATTEMPTS),
        exactly("trials diverged (NaN)", len(diverged), 1),
        at_most(
            "step at which NaN was noticed (made at 3)", max((row[0] for row in diverged), default=1e9), POISON_STEP + 1
        ),
        at_least("hangs killed", len(hangs), MAX_ATTEMPTS),
        at_most("longest hang until killed (s)", max(hangs, default=1e9), size.timeout_seconds + 5.0),
    ]


def _watch(site: Site) -> list[float]:
    """Wait for the study's end; how long each process of the hanging trial lived after its last step."""
    last: dict[int, float] = {}
    ended: dict[int, float] = {}

    def over() -> bool:
        last.update({s.pid: s.at for s in read_steps(site.steps) if s.trial == HANGING and s.step == POISON_STEP})
        gone = [pid for pid in last.keys() - ended.keys() if not is_running(pid)]
        ended.update(dict.fromkeys(gone, time.monotonic()))
        return site.count(ENDED) > 0

    wait_until(over, what="the end of the study", every=0.1)
    return [ended[pid] - last[pid] for pid in ended]


ROW = Row(
    number=11,
    fault="poisoned trials: crash, hang, NaN",
    databases=("sqlite", "postgresql"),
    run=run,
    long=Size(rates=15, seconds=0.3, timeout_seconds=10.0),
    short=Size(rates=3, seconds=0.2, timeout_seconds=5.0),
)
