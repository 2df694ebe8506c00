"""Row 12: random lives of a study with crashes at commits; and a crash at every commit of a plain one in turn."""

from dataclasses import dataclass

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from benchmarks.chaos.figures import Figure, Row, at_least, exactly, told
from benchmarks.chaos.harness import Lab, Site
from benchmarks.chaos.lives import BEFORE, Crash, End, Life, Tally
from benchmarks.chaos.machine import machine_on


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of it."""

    lives: int
    steps: int


def run(lab: Lab, size: Size) -> list[Figure]:
    """First the crash at each commit of one plain life, then random lives."""
    tally = Tally()
    with lab.site() as site:
        wanted, commits = _undisturbed(site)
        ends = [_crashed(site, at, when) for at in range(commits) for when in BEFORE]
        lab.say(f"{len(ends)} crashes, one at each of {commits} commits, before and after it")
        limits = settings(
            max_examples=size.lives, stateful_step_count=size.steps, deadline=None, database=None, derandomize=True,
            suppress_health_check=list(HealthCheck), phases=[Phase.generate],
        )  # fmt: skip
        run_state_machine_as_test(machine_on(site.sessions, wanted, tally), settings=limits)
    return [
        at_least("commit points of a plain life, each crashed before and after", commits, 8),
        exactly("of these, other end states", sum(end != wanted for end in ends), 0),
        at_least("random lives", tally.lives, size.lives),
        told("steps", tally.steps),
        told("crashes before a commit", tally.before),
        told("crashes after a commit", tally.after),
        told("stale writes tried", tally.stale),
        exactly("stale writes accepted", tally.stale_accepted, 0),
        exactly("illegal transitions", tally.illegal, 0),
        exactly("finished results that changed or vanished", tally.changed, 0),
        exactly("random lives with another end state", tally.other_ends, 0),
    ]


def _undisturbed(site: Site) -> tuple[End, int]:
    life = Life(site.sessions)
    life.live()
    return life.end(), life.crash.commits


def _crashed(site: Site, at: int, when: bool) -> End:
    life = Life(site.sessions)
    life.crash.plan(at, before=when)
    try:
        life.live()
    except Crash:
        life.live()
    return life.end()


ROW = Row(
    number=12,
    fault="random lives of a study with a crash at any commit (Hypothesis state machine)",
    databases=("sqlite", "postgresql"),
    run=run,
    long=Size(lives=1000, steps=50),
    short=Size(lives=12, steps=20),
)
