"""Row 7: the process that trains is killed at a random step; what it lost, and whether the end is bit-equal."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
import tempfile
import time

from benchmarks.chaos.figures import Figure, Row, at_least, at_most, exactly, told
from benchmarks.chaos.harness import Lab, Site, kill, outcome, stub_study, wait_until
from benchmarks.chaos.stub_optimizer import Step, Trial, read_steps
from mutransfer.trial import TrialSpec
from tests.driver_support import DriverProcess

CHECKPOINT_SECONDS = 0.5
WIDTHS = (8, 16)


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of it: one kill a trial, `rates` × 2 trials, one at a time."""

    rates: int
    steps: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Victim:
    """A process that was killed while it trained `trial`. Times are of the machine's monotonic clock."""

    trial: Trial
    pid: int
    killed_at: float


@dataclass(frozen=True, kw_only=True)
class Lost:
    """What one kill cost: training time since the last checkpoint, in which the longest single step took `step`."""

    seconds: float
    step_seconds: float
    steps: int


def run(lab: Lab, size: Size) -> list[Figure]:
    """Kill the worker of every trial once."""
    environment = {"MUTRANSFER_CHECKPOINT_SECONDS": str(CHECKPOINT_SECONDS), "MUTRANSFER_RAY_CPUS": "1"}
    with lab.site(**environment) as site:
        spec = stub_study(site, rates=size.rates, widths=WIDTHS, seconds=size.seconds, steps=size.steps)
        site.submit(spec)
        victims: dict[Trial, Victim] = {}
        with site.driver(site.claim(3600.0)) as driver:
            while len(victims) < size.rates * len(WIDTHS):
                victim = _kill_one(lab, site, driver, size, spared=victims)
                victims[victim.trial] = victim
                lab.say(f"kill {len(victims)}: the trial of {victim.trial[0]:g} octaves at width {victim.trial[1]}")
            status = driver.wait(600)
        steps = read_steps(site.steps)
        lost = [_cost(steps, victim) for victim in victims.values()]
        found, losses = outcome(site), _losses(site)
        undisturbed = _undisturbed(site, losses)
    worst = max(lost, key=lambda cost: cost.seconds - cost.step_seconds)
    return [
        at_least("workers killed", len(lost), size.rates * len(WIDTHS)),
        exactly("driver's exit status", status, 0),
        exactly("results", found["results"], size.rates * len(WIDTHS)),
        exactly("trials given up", found["given up"], 0),
        at_most("work redone, less the step under way (s)", worst.seconds - worst.step_seconds, CHECKPOINT_SECONDS),
        told("steps redone at most", max(cost.steps for cost in lost)),
        told("steps of all trials", size.steps * len(losses)),
        exactly("losses that differ in any bit", sum(losses[key] != undisturbed[key] for key in losses), 0),
    ]


def _kill_one(lab: Lab, site: Site, driver: DriverProcess, size: Size, *, spared: Iterable[Trial]) -> Victim:
    """Kill the worker of the next trial that was not hit yet, at a random step. It is tried again after the others."""
    at = lab.rng.randrange(1, size.steps - 1)
    found: list[Step] = []

    def reached() -> bool:
        steps = read_steps(site.steps)
        if steps and steps[-1].trial not in spared and steps[-1].step >= at:
            found.append(steps[-1])
        elif driver.popen.poll() is not None:
            raise TimeoutError(f"the driver ended before a trial was at step {at}:\n{site.logs()}")
        return bool(found)

    wait_until(reached, what=f"a trial at step {at}", every=0.01)
    time.sleep(lab.rng.uniform(0.0, size.seconds / size.steps))
    kill([found[0].pid])
    return Victim(trial=found[0].trial, pid=found[0].pid, killed_at=time.monotonic())


def _cost(steps: list[Step], victim: Victim) -> Lost:
    """What the process that went on had to do again."""
    again = next(s for s in steps if s.trial == victim.trial and s.pid != victim.pid and s.at > victim.killed_at)
    # A step is told before it sleeps, so that what was lost of the first one began with its line.
    redone = [s.at for s in steps if s.trial == victim.trial and s.pid == victim.pid and s.step >= again.step]
    if not redone:  # killed right after a checkpoint
        return Lost(seconds=0.0, step_seconds=0.0, steps=0)
    longest = max(b - a for a, b in zip(redone, [*redone[1:], victim.killed_at], strict=True))
    return Lost(seconds=victim.killed_at - redone[0], step_seconds=longest, steps=len(redone))


def _losses(site: Site) -> Mapping[str, float | None]:
    return dict(site.query("SELECT key, loss_nats FROM trials"))


def _undisturbed(site: Site, keys: Iterable[str]) -> Mapping[str, float | None]:
    """The same trials trained here, in one go."""
    import torch

    from service.db.session import reading
    from service.db.tables import TrialRow
    from workers.data import prepare
    from workers.train import Trainer

    torch.set_num_threads(1)
    found = {}
    with reading(site.sessions) as session, tempfile.TemporaryDirectory() as cache:
        for key in keys:
            trial = _silent(TrialSpec.model_validate(session.get_one(TrialRow, key).spec))
            trainer = Trainer(trial, prepare(trial.data, Path(cache)), model_packages=("benchmarks",))
            trainer.run(trainer.steps)
            found[key] = trainer.finish().loss_nats
    return found


def _silent(trial: TrialSpec) -> TrialSpec:
    options = {**trial.arm.options, "log": "", "seconds": 0.0}
    return trial.model_copy(update={"arm": trial.arm.model_copy(update={"options": options})})


ROW = Row(
    number=7,
    fault="kill -9 of the training process at a random step",
    databases=("sqlite", "postgresql"),
    run=run,
    long=Size(rates=10, steps=60, seconds=3.0),
    short=Size(rates=2, steps=40, seconds=2.0),
)
