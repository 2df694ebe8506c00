"""The one place where a study's charts are defined: dashboard, HTML report and MLflow's artifacts draw these."""

from mutransfer.result import StudyResult
from mutransfer.spec import StudySpec
from service.reports.chart import Chart
from service.reports.loss_chart import loss_chart
from service.reports.optimum_chart import optimum_chart
from service.reports.palette import LIGHT, Theme


def charts(result: StudyResult, spec: StudySpec, theme: Theme = LIGHT) -> tuple[Chart, ...]:
    """The charts of a study in page order: the hero first. A chart without data says when it will appear."""
    return (optimum_chart(result, spec, theme), loss_chart(result, spec, theme))
