"""The audit on a study's page: the charts of one arm, the first that fails unless one is asked for."""

from sqlalchemy.orm import Session

from mutransfer.audit import AuditResult, Check
from mutransfer.errors import NotFoundError
from mutransfer.spec import Parametrization, StudySpec
from service.reports.audit_charts import HEAT_KEY, LEVELS_KEY, audit_charts
from service.reports.chart import Chart
from service.reports.palette import Theme
from service.reports.table import Table
from service.studies.read import audits

_WAITING = "Appears when the audit has run, before the search begins."


def charts(session: Session, spec: StudySpec, study_id: str, arm: str | None, theme: Theme) -> tuple[Chart, ...]:
    """Heat map and levels of one arm's audit; nothing for a study that asks for none."""
    if spec.audit is None:
        return ()
    try:
        found = audits(session, study_id)
    except NotFoundError:
        none = Table(caption="No audit yet", columns=(), rows=())
        return tuple(
            Chart(key=key, title="The audit has not run yet", note="", table=none, empty=_WAITING)
            for key in (HEAT_KEY, LEVELS_KEY)
        )
    return audit_charts(_chosen(found, arm), theme)


def chosen_arm(session: Session, spec: StudySpec, study_id: str, arm: str | None) -> str:
    """The name of the arm whose audit is shown."""
    try:
        return _chosen(audits(session, study_id), arm).arm.name
    except NotFoundError:
        return spec.arms[0].name


def _chosen(found: tuple[AuditResult, ...], arm: str | None) -> AuditResult:
    named = {result.arm.name: result for result in found}
    if arm in named:
        return named[arm]
    mup = [result for result in found if result.arm.parametrization is Parametrization.MUP]
    failing = [result for result in mup if result.check is Check.FAIL]
    return (failing or mup or list(found))[0]
