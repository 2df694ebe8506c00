"""Row 10: two schedulers over a year of fire times, with its changes of the clock, kills and days with nobody there."""

from benchmarks.chaos.figures import Figure, Row, at_least, exactly, told
from benchmarks.chaos.harness import Lab
from benchmarks.nights import clock


def run(lab: Lab, size: clock.Size) -> list[Figure]:
    """What benchmarks.nights.clock counts."""
    with lab.site() as site:
        folder = site.home / "clock"
        folder.mkdir()
        found = clock.run(site.settings.database_url, folder, size, lab.rng, say=lab.say)
    return [
        at_least("fire times", found.slots, 1000 if size == clock.LONG else 10),
        at_least("changes of the clock", found.clock_changes, 2),
        at_least("kills", found.kills, 2),
        told("nights", found.nights),
        told("fire times that passed with nobody there", found.passed_while_away),
        exactly("fire times with two nights or two studies", found.doubled, 0),
        exactly("nights at no fire time", found.unknown, 0),
        exactly("fire times lost (neither run nor counted as missed)", found.lost, 0),
        told("catch-ups", found.catch_ups),
        exactly("catch-ups beyond one an outage and schedule", found.beyond_one, 0),
    ]


ROW = Row(
    number=10,
    fault="two schedulers; 1,000 fire times, changes of the clock, kills",
    databases=("sqlite", "postgresql"),
    run=run,
    long=clock.LONG,
    short=clock.SHORT,
)
