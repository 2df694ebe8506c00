"""Studies written through the driver's own store: what the dashboard shows is what a real driver would have left."""

from dataclasses import dataclass, field
import hashlib
from pathlib import Path

from sqlalchemy import event

from mutransfer.facts import StudyFacts
from mutransfer.plan import Phase, TrialRequest
from mutransfer.spec import StudySpec
from mutransfer.trial import Environment, trial_spec
from service.db import studies
from service.db.driver_store import DriverStore, PlannedTrial
from service.db.leases import Leases
from service.db.migrate import upgrade
from service.db.session import Sessions, make_engine, reading, session_factory
from service.settings import Settings
from service.studies.read import result_document
from tests.e2e.audits import audits_of
from tests.e2e.samples import Bowl, Simulation, simulate, study_spec, trial_result

ENVIRONMENT = Environment(data_fingerprint="f" * 16, code_digest="c" * 16, torch_version="2.13", device_type="cpu")
FACTS = StudyFacts(vocab=97, train_tokens=9_000_000, heldout_tokens=500_000, environment=ENVIRONMENT)


@dataclass
class Seeded:
    """The settings of the seeded service, the ids of its studies by name, and where it answers."""

    settings: Settings
    sessions: Sessions
    ids: dict[str, str] = field(default_factory=dict)
    simulations: dict[str, Simulation] = field(default_factory=dict)
    url: str = ""


class Seeder:
    """Plays drivers: claims each study in turn and writes what its simulation did."""

    def __init__(self, seeded: Seeded) -> None:
        self._seeded = seeded
        self._leases = Leases(seeded.sessions)

    def submit(self, spec: StudySpec) -> str:
        """A queued study."""
        study_id, _ = studies.submit(self._seeded.sessions, studies.Submission(spec=spec, trials_expected=240))
        self._seeded.ids[spec.name] = study_id
        return study_id

    def drive(self, simulation: Simulation) -> DriverStore:
        """A running study whose trials are those of the simulation."""
        study_id = self.submit(simulation.spec)
        claim = self._leases.claim_next("seeder", 3600.0)
        while claim is not None and claim.study_id != study_id:  # older ones that wait keep waiting
            claim = self._leases.claim_next("seeder", 3600.0)
        assert claim is not None
        store = DriverStore(self._seeded.sessions, study_id, claim.epoch, ttl_seconds=3600.0)
        store.mark_running()
        store.record_facts(FACTS)
        if simulation.spec.audit is not None:
            store.begin_phase(Phase.AUDIT)
            payload = {"audits": [found.model_dump(mode="json") for found in audits_of(simulation.spec)]}
            store.finish_phase(Phase.AUDIT, payload, said={})
        for phase in (Phase.SEARCH, Phase.TRANSFER, Phase.VERIFY):
            self._phase(store, simulation, phase)
        self._seeded.simulations[simulation.spec.name] = simulation
        return store

    def _phase(self, store: DriverStore, simulation: Simulation, phase: Phase) -> None:
        trials = [(request, loss) for at, request, loss in simulation.trials if at is phase]
        if not trials and phase not in simulation.phases:
            return
        store.begin_phase(phase)
        store.plan_trials(phase, [planned(simulation.spec, request) for request, _ in trials])
        found = {
            planned(simulation.spec, request).key: trial_result(loss, width=request.axis_value, seed=request.seed)
            for request, loss in trials
        }
        store.record_results(found)
        if phase in simulation.phases:
            store.finish_phase(phase, {"recorded": simulation.recorded} if phase is Phase.SEARCH else {})

    def complete(self, simulation: Simulation) -> str:
        """A completed study with its verdict."""
        store = self.drive(simulation)
        study_id = self._seeded.ids[simulation.spec.name]
        store.begin_phase(Phase.VERDICT)
        with reading(self._seeded.sessions) as session:
            result = result_document(session, study_id)
        final = result.model_copy(update={"study": result.study.model_copy(update={"state": "completed"})})
        store.finish_phase(Phase.VERDICT)
        store.finish("completed", result=final)
        return study_id


def planned(spec: StudySpec, request: TrialRequest) -> PlannedTrial:
    """The trial of a request; its key is unique to the study, so that no seeded study borrows from another."""
    arm = next(arm for arm in spec.arms if arm.name == request.arm)
    key = hashlib.sha256(f"{spec.name}/{request}".encode()).hexdigest()[:32]
    return PlannedTrial(
        key=key,
        request=request,
        spec=trial_spec(spec, arm, request.axis_value, request.lr_octaves, request.seed),
    )


def _narrow_search() -> dict[str, object]:
    """A search that may not go low enough for SP: unbracketed at the larger widths."""
    return {"lr_octaves": {"low": -6, "high": -2, "step": 1, "limit": [-6, -1]}}


NOISY = {
    "adamw-mup": {
        width: Bowl(optimum=optimum, floor=floor, curvature=0.006, edge=-1.6)
        for width, optimum, floor in zip(
            (32, 64, 128, 256), (-4.8, -4.6, -4.2, -3.9), (2.31, 2.2, 2.1, 2.03), strict=True
        )
    },
}


def seed(home: Path) -> Seeded:
    """A database with a study of every kind: completed, unsettled, unbracketed, running, queued, cancelled, failed."""
    settings = Settings(home=home, mlflow_url="").prepare_home()
    upgrade(settings.database_url)
    engine = make_engine(settings.database_url)
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
    seeded = Seeded(settings=settings, sessions=session_factory(engine))
    seeder = Seeder(seeded)
    seeder.drive(simulate(study_spec("broken-data"), stop_after=9)).finish(
        "failed", result=None, error="the data at text:/data/corpus.txt was moved while the study ran: submit it again"
    )
    seeder.complete(simulate(study_spec("narrow-limits", search=_narrow_search())))
    arms = [{"optimizer": "adamw", "parametrization": "mup"}]
    seeder.complete(simulate(study_spec("too-noisy", arms=arms), arms=NOISY))
    seeder.complete(simulate(study_spec("audited", audit={"steps": 8})))
    study_id = seeder.complete(simulate(study_spec("quickstart")))
    with seeded.sessions.begin() as session:
        studies.set_mlflow_url(session, study_id, "http://127.0.0.1:5000/#/experiments/1/runs/abc")
    seeder.drive(simulate(study_spec("nightly-check", project="nights"), stop_after=112))
    cancelled = seeder.submit(study_spec("changed-my-mind"))
    with seeded.sessions.begin() as session:
        studies.cancel(session, cancelled)
    seeder.submit(study_spec("waiting-its-turn"))
    return seeded
