"""What the pages of trials and the list of studies read, on both databases."""

from collections.abc import Callable

import pytest

from mutransfer.judge import judge_study
from mutransfer.result import Cost, Outcome, StudyRef
from service.dashboard import trial_queries
from service.dashboard.queries import Filters, list_studies
from service.dashboard.trial_queries import TrialFilters, count_trials, list_trials
from service.db.driver_store import DriverStore
from service.db.session import Sessions, reading
from service.db.states import TrialState
from service.db.trial_pages import Place
from tests import study_builders as build

SPEC = build.spec()
LOST = build.planned(SPEC, lr=-6.0, seed=1)
GRID = [
    build.planned(SPEC, arm, width=width, lr=lr, seed=seed)
    for arm in ("adamw-sp", "adamw-mup") for width in (16, 64) for lr in (-6.0, -5.5) for seed in (0, 1)
]  # fmt: skip


@pytest.fixture
def store(submit: Callable[..., str], drive: Callable[[], DriverStore]) -> DriverStore:
    """A running study: its grid has finished but for one trial that was given up; verify uses the search's again."""
    submit()
    found = drive()
    found.mark_running()
    found.record_facts(build.FACTS)
    found.begin_phase("search")
    found.plan_trials("search", GRID)
    for trial in GRID:
        if trial.key != LOST.key:
            found.record_result(trial.key, build.result())
    found.record_failure(LOST.key, attempt=3, traceback="ValueError: bad", final=True)
    found.finish_phase("search", {"recorded": {}})
    found.begin_phase("verify")
    found.plan_trials("verify", GRID[:4])
    return found


def test_trials_are_listed_once_in_order_and_filtered(sessions: Sessions, store: DriverStore) -> None:
    study = store.study()
    with reading(sessions) as session:
        lines, more = list_trials(session, study.id, TrialFilters())
        assert not more
        places = [line.place for line in lines]
        assert len(places) == len(set(places)) == len({trial.request for trial in GRID})
        assert places == sorted(places)
        chosen, _ = list_trials(session, study.id, TrialFilters(arm="adamw-mup", size=64, lr_octaves=-5.5))
        assert [line.place for line in chosen] == [("adamw-mup", 64, -5.5, 0), ("adamw-mup", 64, -5.5, 1)]
        failed, _ = list_trials(session, study.id, TrialFilters(status=TrialState.FAILED))
        assert {line.key for line in failed} == {LOST.key}
        counts = count_trials(session, study.id)
        assert counts["failed"] == 1
        assert sum(counts.values()) == len({trial.key for trial in GRID})


def test_trials_come_page_by_page(sessions: Sessions, store: DriverStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_queries, "PAGE_SIZE", 3)
    study, filters, seen = store.study(), TrialFilters(), list[Place]()
    with reading(sessions) as session:
        whole = True
        while whole:
            lines, whole = list_trials(session, study.id, filters)
            seen += [line.place for line in lines]
            filters = filters.beyond(lines[-1].place)
    assert len(seen) == len(set(seen)) == len(GRID)


def test_studies_are_found_by_the_verdict_of_an_arm(sessions: Sessions, store: DriverStore) -> None:
    for phase in ("verify", "verdict"):
        store.begin_phase(phase)
        store.finish_phase(phase)
    study = store.study()
    ref = StudyRef(id=study.id, name=study.name, state="completed")
    cost = Cost(device_seconds=0.0, tokens=0, trials=1, reused=0, direct_search_device_seconds=None)
    store.finish("completed", result=judge_study(study.spec, [], recorded={}, study=ref, cost=cost))
    with reading(sessions) as session:
        assert [line.row.id for line in list_studies(session, Filters(verdict=Outcome.INCONCLUSIVE))[0]] == [study.id]
        assert list_studies(session, Filters(verdict=Outcome.TRANSFERS)) == ([], False)
