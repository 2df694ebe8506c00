"""Why a study is not getting on: the first thing that has to change before it does."""

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from service.db import quotas
from service.db.leases import CLAIMABLE
from service.db.quotas import Shortage
from service.db.session import db_now
from service.db.states import StudyState
from service.db.tables import LeaseRow, StudyRow
from service.db.tables_access import ProjectRow


class WaitReason(StrEnum):
    """What a study waits for."""

    PAUSED = "paused"  # a person paused it: resume it
    STOPPING = "stopping"  # its driver checkpoints or ends its trials
    STARTING = "starting"  # a driver is being started
    QUOTA = "quota"  # its project has reached a limit
    RETRY = "retry"  # its driver failed, or gave it back: the next try comes after a pause
    LEASE = "lease"  # its driver is gone without a word, and nobody has taken it up yet
    PRIORITY = "priority"  # studies of higher priority come first
    SLOTS = "slots"  # older studies come first, or no dispatcher has room


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A reason, in words with its figures. `until_seconds`: when it is over by itself, where that is known."""

    reason: WaitReason
    message: str
    until_seconds: float | None = None


def why(session: Session, row: StudyRow) -> Waiting | None:
    """Why a study waits; None when it runs or has ended."""
    state = StudyState(row.state)
    if state.is_final:
        return None
    if state is StudyState.PAUSED:
        return Waiting(reason=WaitReason.PAUSED, message="it is paused: `mutransfer resume` lets it go on")
    lease, now = session.execute(
        select(LeaseRow, db_now()).where(LeaseRow.study_id == row.id).execution_options(populate_existing=True)
    ).one()  # fmt: skip
    if state in (StudyState.PAUSING, StudyState.CANCELLING):
        return Waiting(reason=WaitReason.STOPPING, message="its driver is stopping its trials")
    if lease.owner and lease.expires_at > now:
        return _driven(session, row, lease)
    return _quota(session, row) or _retry(lease, now) or _orphaned(lease, now) or _queue(session, row)


def _driven(session: Session, row: StudyRow, lease: LeaseRow) -> Waiting | None:
    if row.state == StudyState.QUEUED:
        return Waiting(reason=WaitReason.STARTING, message=f"a driver is being started by {lease.owner}")
    if lease.slots == 0 and lease.slots_wanted > 0 and (project := session.get(ProjectRow, row.project)) is not None:
        return Waiting(reason=WaitReason.QUOTA, message=_taken(project))
    return None


def _taken(project: ProjectRow) -> str:
    return f"all {project.max_concurrent_trials} trials that project {project.name} may run at once are taken"


def _quota(session: Session, row: StudyRow) -> Waiting | None:
    project = session.get(ProjectRow, row.project)
    reached = quotas.shortage(session, project) if project is not None else None
    if project is None or reached is None:
        return None
    if reached is Shortage.TRIALS:
        return Waiting(reason=WaitReason.QUOTA, message=_taken(project))
    used = quotas.device_hours(session, project.name)
    message = (
        f"project {project.name} has used {used:.2f} of its {project.device_hours:g} device-hours: "
        f"an administrator raises them with `mutransfer project set {project.name} --device-hours`"
    )
    return Waiting(reason=WaitReason.QUOTA, message=message)


def _retry(lease: LeaseRow, now: float) -> Waiting | None:
    left = lease.expires_at - now
    if left <= 0.0:
        return None
    message = f"its driver failed or the machine was at fault: the next try is in {left:.0f} s"
    return Waiting(reason=WaitReason.RETRY, message=message, until_seconds=left)


def _orphaned(lease: LeaseRow, now: float) -> Waiting | None:
    if not lease.owner:
        return None
    message = (
        f"its driver is gone: the lease ran out {now - lease.expires_at:.0f} s ago; a dispatcher with room takes it"
    )
    return Waiting(reason=WaitReason.LEASE, message=message)


def _queue(session: Session, row: StudyRow) -> Waiting:
    before, older = _ahead(session, row)
    if before:
        what = "study of higher priority comes" if before == 1 else "studies of higher priority come"
        return Waiting(reason=WaitReason.PRIORITY, message=f"{before} {what} first")
    if older:
        what = "older study of its priority comes" if older == 1 else "older studies of its priority come"
        return Waiting(reason=WaitReason.SLOTS, message=f"{older} {what} first")
    driven = session.scalar(select(func.count()).select_from(LeaseRow).where(quotas.is_held())) or 0
    if driven:
        message = f"it is next; the dispatchers have no room while {driven} others are driven"
    else:
        message = "no dispatcher has taken it yet: is one running?"
    return Waiting(reason=WaitReason.SLOTS, message=message)


def _ahead(session: Session, row: StudyRow) -> tuple[int, int]:
    """(of higher priority, older of the same one) among the studies that could be claimed now."""
    blocked = quotas.shortages(session)
    is_higher = StudyRow.priority > row.priority
    is_older = (StudyRow.priority == row.priority) & (StudyRow.id < row.id)
    counted = (
        select(func.count().filter(is_higher), func.count().filter(is_older))
        .select_from(StudyRow)
        .join(LeaseRow, LeaseRow.study_id == StudyRow.id)
        .where(
            StudyRow.state.in_(CLAIMABLE), LeaseRow.expires_at <= db_now(), or_(is_higher, is_older),
            StudyRow.project.not_in(sorted(blocked)),
        )
    )  # fmt: skip
    higher, older = session.execute(counted).one()
    return higher, older
