"""A history to measure on: one study is played through the driver's own store, and copied inside the database.

Each big study has 1,000 trials (5 arms, 4 widths, 10 rates, 5 seeds), each with its training curve, events and outbox
messages; each small one 50. Copies have ids and content keys of their own; whatever columns and tables there are get
copied, so that the benchmark follows the schema.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
import hashlib

from sqlalchemy import Engine, Table, func, select, text

from mutransfer.facts import StudyFacts
from mutransfer.judge import CurveData, judge_study
from mutransfer.plan import TrialRequest
from mutransfer.result import StudyRef
from mutransfer.spec import StudySpec, parse_study
from mutransfer.trial import Environment, HistoryPoint, TrialResult, TrialStatus, trial_spec
from service.db.driver_store import DriverStore, PlannedTrial
from service.db.leases import Leases
from service.db.migrate import upgrade
from service.db.session import Sessions, make_engine, session_factory
from service.db.studies import Submission, submit
from service.db.tables import Base, StudyRow, StudyTrialRow, TrialRow
from service.ids import new_study_id

WIDTHS = (32, 64, 128, 256)
RATES = tuple(-8.0 + half / 2 for half in range(10))
ARMS = (("adamw", "sp"), ("adamw", "mup"), ("muon", "mup"), ("lamb", "mup"), ("sgd", "mup"))
TTL_SECONDS = 3600.0
STEPS = 300
HISTORY, RUNNING = "history", "running"  # names of the studies
ENVIRONMENT = Environment(data_fingerprint="f" * 16, code_digest="c" * 16, torch_version="2.13", device_type="cpu")
FACTS = StudyFacts(vocab=97, train_tokens=9_000_000, heldout_tokens=500_000, environment=ENVIRONMENT)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much history. Trials: 1,000 a big study, 50 a small one."""

    name: str
    big: int
    small: int

    @property
    def studies(self) -> int:
        """Finished studies."""
        return self.big + self.small

    @property
    def trials(self) -> int:
        """Rows of `trials`."""
        return 1000 * self.big + 50 * self.small


LARGE = Scale(name="large", big=1000, small=0)
SMALL = Scale(name="small", big=5, small=100)
SCALES = (SMALL, LARGE)


def study(name: str, *, seeds: int, arms: int, widths: int) -> StudySpec:
    """A study of `arms` x `widths` x 10 rates x `seeds` trials."""
    return parse_study({
        "version": 1, "name": name,
        "model": {"family": "nanogpt", "depth": 2, "head_dim": 16, "context": 32},
        "train": {"batch": 32, "steps": STEPS},
        "widths": {"base": 32, "proxy": list(WIDTHS[: max(1, widths - 2)]), "targets": list(WIDTHS[-2:][: widths - 1])},
        "arms": [{"optimizer": optimizer, "parametrization": rule} for optimizer, rule in ARMS[:arms]],
        "search": {"lr_octaves": {"low": -8, "high": -3}, "seeds": {"min": seeds, "max": max(seeds, 5)}},
    })  # fmt: skip


BIG = {"seeds": 5, "arms": 5, "widths": 4}
LITTLE = {"seeds": 1, "arms": 5, "widths": 1}


def requests(spec: StudySpec, seeds: int) -> list[TrialRequest]:
    """Every place on the study's curves."""
    return [
        TrialRequest(arm=arm.name, axis_value=width, lr_octaves=rate, seed=seed)
        for arm in spec.arms
        for width in spec.axis.values
        for rate in RATES
        for seed in range(seeds)
    ]


def planned(spec: StudySpec, request: TrialRequest, study_id: str) -> PlannedTrial:
    """A trial of this very study: keys are never shared."""
    arm = next(arm for arm in spec.arms if arm.name == request.arm)
    trial = trial_spec(spec, arm, request.axis_value, request.lr_octaves, request.seed)
    return PlannedTrial(
        key=hashlib.sha256(f"{study_id}/{request}".encode()).hexdigest()[:32], request=request, spec=trial
    )


def outcome(request: TrialRequest) -> TrialResult:
    """A bowl with its minimum near 2^-5.5, a curve of 30 points, and a little noise that is always the same."""
    noise = int(hashlib.sha256(str(request).encode()).hexdigest()[:6], 16) / 2**24
    loss = 2.0 + 0.034 * (request.lr_octaves + 5.5) ** 2 + 0.004 * noise
    steps = range(10, STEPS + 1, 10)
    curve = tuple(HistoryPoint(step=step, train_loss_nats=loss + 2.6 * 0.98**step) for step in steps)
    return TrialResult(
        status=TrialStatus.FINISHED, loss_nats=loss, initial_loss_nats=4.6, train_loss_nats=loss, history=curve,
        steps=STEPS, tokens=STEPS * 1024, parameters=24 * request.axis_value**2, device_seconds=4.0, device="cpu",
    )  # fmt: skip


def begin(sessions: Sessions, spec: StudySpec) -> tuple[str, DriverStore]:
    """A running study that we hold."""
    study_id, _ = submit(sessions, Submission(spec=spec, trials_expected=1000))
    leases = Leases(sessions)
    claim = leases.claim_next("bench", TTL_SECONDS)
    while claim is not None and claim.study_id != study_id:
        claim = leases.claim_next("bench", TTL_SECONDS)
    if claim is None:
        raise RuntimeError(f"study {study_id} could not be claimed")
    store = DriverStore(sessions, study_id, claim.epoch, ttl_seconds=TTL_SECONDS)
    store.mark_running()
    store.record_facts(FACTS)
    return study_id, store


def play(sessions: Sessions, spec: StudySpec, *, seeds: int, share: float = 1.0) -> str:
    """A study through the driver's store, completed unless only a `share` of its trials has finished."""
    study_id, store = begin(sessions, spec)
    asked = requests(spec, seeds)
    done = asked[: int(len(asked) * share)]
    phases = {"search": spec.axis.proxy, "transfer": spec.axis.targets, "verify": spec.axis.targets}
    for phase, sizes in phases.items():
        mine = [request for request in asked if request.axis_value in sizes]
        if not mine:
            continue
        store.begin_phase(phase)
        store.plan_trials(phase, [planned(spec, request, study_id) for request in mine])
        if phase != "verify":  # whose trials the transfer phase has trained
            ended = [request for request in mine if request in done]
            store.record_results({planned(spec, request, study_id).key: outcome(request) for request in ended})
        if share == 1.0:
            recorded = {"recorded": {arm.name: -5.5 for arm in spec.arms}} if phase == "search" else {}
            store.finish_phase(phase, recorded)
    if share == 1.0:
        curves = [CurveData(arm=a, axis_value=v, observations=o) for (a, v), o in store.observations().items()]
        ref = StudyRef(id=study_id, name=spec.name, state="completed")
        recorded_rates = dict(store.recorded())
        result = judge_study(spec, curves, recorded=recorded_rates, study=ref, cost=store.cost())
        store.begin_phase("verdict")
        store.finish_phase("verdict")
        store.finish("completed", result=result)
    return study_id


def seed(url: str, scale: Scale) -> bool:
    """Fill a database; returns False when it is filled already. Brings its schema up to date in any case."""
    upgrade(url)
    engine = make_engine(url)
    sessions = session_factory(engine)
    try:
        filled = _fill(engine, sessions, scale)
        if not _has_running(sessions):
            filled = True
            play(sessions, study(RUNNING, **BIG), seeds=BIG["seeds"], share=0.8)
            for index in range(10):
                submit(sessions, Submission(spec=study(f"waiting-{index}", **BIG), trials_expected=1000))
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))
    finally:
        engine.dispose()
    return filled


def _fill(engine: Engine, sessions: Sessions, scale: Scale) -> bool:
    if _count(engine) >= scale.trials:
        return False
    for options, copies in ((LITTLE, scale.small), (BIG, scale.big)):
        if copies:
            template = play(sessions, study(HISTORY, **options), seeds=options["seeds"])
            _copy(engine, template, copies - 1)
    return True


def _has_running(sessions: Sessions) -> bool:
    with sessions() as session:
        return session.scalar(select(StudyRow.id).where(StudyRow.name == RUNNING)) is not None


def _count(engine: Engine) -> int:
    with engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(TrialRow)).scalar_one()


def _copy(engine: Engine, template: str, copies: int) -> None:
    """Copy everything of one study, `copies` times, inside the database."""
    ids = sorted(new_study_id() for _ in range(copies))
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL synchronous_commit = off"))
        connection.execute(text("CREATE TEMP TABLE copies (n integer, id text) ON COMMIT DROP"))
        connection.execute(
            text("INSERT INTO copies VALUES (:n, :id)"), [{"n": n, "id": id_} for n, id_ in enumerate(ids)]
        )
        for table in Base.metadata.sorted_tables:
            statement = _copy_statement(table)
            if statement:
                connection.execute(text(statement), {"template": template})


def _copy_statement(table: Table) -> str:
    values = dict(_columns(table))
    if "study_id" in table.columns:
        rows = "t.study_id = :template"
    elif table.name == "studies":
        rows = "t.id = :template"
    elif table.name == "trials":
        rows = "t.key IN (SELECT trial_key FROM study_trials WHERE study_id = :template)"
    else:
        return ""
    order = ", t.id" if "id" in table.columns and table.name != "studies" else ""
    return (
        f"INSERT INTO {table.name} ({', '.join(values)}) SELECT {', '.join(values.values())} "
        f"FROM copies c CROSS JOIN {table.name} t WHERE {rows} ORDER BY c.n{order}"
    )


def _columns(table: Table) -> Iterator[tuple[str, str]]:
    """(column, the expression of its copy)."""
    for column in table.columns:
        place = (table.name, column.name)
        if place == ("studies", "id") or column.name == "study_id":
            yield column.name, "c.id"
        elif place in (("trials", "key"), ("study_trials", "trial_key")):
            yield column.name, f"md5(t.{column.name} || '/' || c.id)"
        elif place == ("outbox", "key"):
            yield column.name, "CASE WHEN t.key = '' THEN '' ELSE md5(t.key || '/' || c.id) END"
        elif place == ("outbox", "done_at"):
            yield column.name, "t.created_at"
        elif column.name == "id" and column.autoincrement is True:
            continue
        else:
            yield column.name, f"t.{column.name}"


def study_ids(sessions: Sessions, *, trials: int) -> Sequence[str]:
    """Ids of the seeded, completed studies with so many trials, oldest first."""
    with sessions() as session:
        counted = func.count(StudyTrialRow.trial_key.distinct())
        query = select(StudyRow.id).join(StudyTrialRow).where(StudyRow.name == HISTORY).group_by(StudyRow.id)
        return list(session.scalars(query.having(counted == trials).order_by(StudyRow.id)))


def running(sessions: Sessions) -> str:
    """The id of the study that runs, with 1,000 trials planned and 800 done."""
    with sessions() as session:
        return session.scalars(select(StudyRow.id).where(StudyRow.name == RUNNING)).one()
