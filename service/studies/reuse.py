"""Which trials of a study are known already, told before it is submitted.

A trial's key depends on the data's content and on the code that trains, which only workers know. The latest study on
the same data with the same models told them to the database: its answer holds as long as neither has changed since.
"""

from collections.abc import Collection, Mapping

from sqlalchemy import select
from sqlalchemy.orm import Session

from mutransfer.facts import StudyFacts
from mutransfer.reuse import KnownResult, Reuse, known_trials
from mutransfer.spec import StudySpec
from mutransfer.trial import Environment
from service.db.tables import StudyRow, TrialRow
from service.db.trials import chunks
from service.studies.checks import estimate_study

STUDIES_LOOKED_AT = 100
NO_BASIS = "no study has run on these data and models yet"
SAMPLED = "the search samples several hyperparameters first: what it asks for is decided as it runs"
FRESH = "every trial runs anew"


def reuse(session: Session, spec: StudySpec, *, fresh: bool) -> Reuse:
    """What need not run of a study that is submitted now."""
    expected = estimate_study(spec).trials_expected
    if fresh or spec.search.samples_first:
        return Reuse(trials_total=expected, note=FRESH if fresh else SAMPLED)
    found = _basis(session, spec)
    if found is None:
        return Reuse(trials_total=expected, note=NO_BASIS)
    study_id, environment = found
    return known_trials(
        spec, environment, lambda keys: _results(session, keys), expected=expected, basis=study_id
    )  # fmt: skip


def _basis(session: Session, spec: StudySpec) -> tuple[str, Environment] | None:
    """The newest study on the same data with the same code, and what its trials depended on besides their specs."""
    latest = (
        select(StudyRow.id, StudyRow.spec, StudyRow.facts)
        .where(StudyRow.facts.is_not(None))
        .order_by(StudyRow.id.desc())
        .limit(STUDIES_LOOKED_AT)
    )
    wanted = _code(spec.model_dump(mode="json"))
    for study_id, document, facts in session.execute(latest):
        if _code(document) == wanted:
            environment = StudyFacts.model_validate(facts).environment
            return study_id, environment.model_copy(update={"nonce": ""})
    return None


def _code(document: Mapping[str, object]) -> tuple[object, ...]:
    """What of a stored spec decides the data's content and the code: the rest is in each trial's own spec."""
    model, arms = document["model"], document["arms"]
    family = model["family"] if isinstance(model, dict) else None
    names = {str(arm["optimizer"]) for arm in arms} if isinstance(arms, list | tuple) else set()
    own = sorted(name for name in (*names, str(family)) if ":" in name)
    return document["data"], own


def _results(session: Session, keys: Collection[str]) -> Mapping[str, KnownResult]:
    columns = (TrialRow.key, TrialRow.loss_nats, TrialRow.device_seconds)
    return {
        key: KnownResult(loss_nats=loss, device_seconds=seconds)
        for part in chunks(sorted(keys))
        for key, loss, seconds in session.execute(
            select(*columns).where(TrialRow.key.in_(part), TrialRow.result.is_not(None))
        )
    }
