"""Row 10: two schedulers over a year's fire times with its changes of the clock, kills, and days with nobody there."""

from benchmarks.chaos.figures import Figure, Row, at_least, exactly, told
from benchmarks.chaos.harness import Lab
from benchmarks.nights import clock
from benchmarks.nights.clock import LONG, SHORT, Size


def run(lab: Lab, size: Size) -> list[Figure]:
    """Move the schedulers' clock from slot to slot, and count what became of each."""
    with lab.site() as site:
        found = clock.run(site.settings.database_url, lab.folder, size, lab.rng, say=lab.say)
    return [
        at_least("fire times", found.nights, 1_000 if size == LONG else 10),
        at_least("changes of the clock", found.clock_changes, 2),
        at_least("kills", found.kills, 10 if size == LONG else 1),
        at_least("slots that passed with nobody there", found.passed_while_away, 1),
        told("stretches with nobody there", found.outages),
        told("nights that caught up", found.catch_ups),
        exactly("nights at no slot", found.unknown, 0),
        exactly("slots with two nights or studies", found.doubled, 0),
        exactly("slots that neither ran nor were counted as missed", found.lost, 0),
        exactly("nights beyond one in catching up", found.beyond_one, 0),
    ]


ROW = Row(
    number=10, fault="two schedulers, 1,000 fire times, two changes of the clock, random kills",
    databases=("sqlite", "postgresql"), run=run, long=LONG, short=SHORT,
)  # fmt: skip
