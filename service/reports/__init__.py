"""What a study says, in words, tables and charts: shared by the dashboard, the HTML report and MLflow's artifacts."""

import json
from pathlib import Path

from mutransfer.result import StudyResult
from mutransfer.spec import StudySpec
from service.reports.figures import charts
from service.reports.html import report_html
from service.reports.markdown import report_markdown

__all__ = ["write_report"]


def write_report(result: StudyResult, spec: StudySpec, directory: Path) -> list[Path]:
    """Write report.md, report.html and, for each chart that has data, figures/KEY.json (Plotly) and figures/KEY.csv.

    Creates `directory`. Returns the files in the order written. The same result gives the same bytes.
    """
    figures = directory / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    texts = {
        directory / "report.md": report_markdown(result, spec),
        directory / "report.html": report_html(result, spec),
    }
    for chart in charts(result, spec):
        if not chart.empty:
            figure = {"data": list(chart.data), "layout": chart.layout | {"title": {"text": chart.title}}}
            texts[figures / f"{chart.key}.json"] = json.dumps(figure, indent=1) + "\n"
            texts[figures / f"{chart.key}.csv"] = chart.table.csv()
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8", newline="")
    return list(texts)
