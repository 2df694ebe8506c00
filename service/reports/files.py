"""Reports as files: their forms, and how a file is answered over HTTP."""

from enum import StrEnum

from fastapi import Response

from mutransfer.result import StudyResult
from mutransfer.spec import StudySpec
from service.reports.html import report_html
from service.reports.markdown import report_markdown
from service.reports.pdf import report_pdf


class ReportForm(StrEnum):
    """How a report is written."""

    HTML = "html"
    MD = "md"
    PDF = "pdf"


REPORT_FORMS = {
    ReportForm.HTML: "text/html; charset=utf-8", ReportForm.MD: "text/markdown; charset=utf-8",
    ReportForm.PDF: "application/pdf",
}  # fmt: skip


def report_file(result: StudyResult, spec: StudySpec, form: ReportForm) -> bytes:
    """The report in one form."""
    if form is ReportForm.PDF:
        return report_pdf(result, spec)
    write = report_html if form is ReportForm.HTML else report_markdown
    return write(result, spec).encode()


def attachment(body: bytes, media_type: str, name: str) -> Response:
    """A file to keep. `name` is plain ASCII without quotes."""
    return Response(body, media_type=media_type, headers={"Content-Disposition": f'attachment; filename="{name}"'})
