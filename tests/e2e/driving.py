"""A study that a test drives itself, to watch what its page makes of it."""

from dataclasses import dataclass

from mutransfer.plan import Phase
from mutransfer.spec import StudySpec
from service.db.driver_store import DriverStore
from tests.e2e.samples import simulate, study_spec, trial_result
from tests.e2e.seeding import Seeded, Seeder, planned


@dataclass(frozen=True)
class Driven:
    """A running study."""

    id: str
    spec: StudySpec
    store: DriverStore

    def plan(self, count: int) -> list[str]:
        """Plan `count` trials beyond the first; returns their keys."""
        more = [planned(self.spec, request) for _, request, _ in simulate(self.spec, stop_after=1 + count).trials[1:]]
        self.store.plan_trials(Phase.SEARCH, more)
        return [trial.key for trial in more]

    def finish_more(self, count: int) -> None:
        """`count` trials beyond the first finish."""
        self.plan(count)
        for _, request, loss in simulate(self.spec, stop_after=1 + count).trials[1:]:
            result = trial_result(loss, width=request.axis_value, seed=request.seed)
            self.store.record_result(planned(self.spec, request).key, result)


def drive_one(site: Seeded) -> Driven:
    """A fresh running study with one trial done."""
    spec = study_spec(f"live-{len(site.ids)}")
    store = Seeder(site).drive(simulate(spec, stop_after=1))
    return Driven(id=site.ids[spec.name], spec=spec, store=store)
