"""The part of the client that fetches files: reports, data, charts, recipes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from service.studies.schemas import API


class FileClient(ABC):
    """What `Client` inherits. `_file` fetches bytes and raises the kernel's errors."""

    @abstractmethod
    def _file(self, path: str, params: Mapping[str, Any]) -> bytes:
        """The body of GET `path`."""

    def report(self, study_id: str, *, form: str = "html") -> bytes:
        """The report as one file: `html`, `md` or `pdf`."""
        return self._file(f"{API}/studies/{study_id}/report", {"format": form})

    def export(self, study_id: str, data: str = "trials", *, form: str = "csv") -> bytes:
        """`trials` or `fits` as a file: `csv` or `parquet`."""
        return self._file(f"{API}/studies/{study_id}/export", {"data": data, "format": form})

    def figure(self, study_id: str, key: str, *, form: str = "svg", **options: Any) -> bytes:
        """A chart of the study's page as `svg`, `png` or `pdf`; `options` are `theme`, `arm` and `size`."""
        return self._file(f"{API}/studies/{study_id}/figures/{quote(key, safe='')}", {"format": form, **options})

    def recipe_text(
        self, study_id: str, *, width: int, form: str, depth: int | None = None, arm: str | None = None
    ) -> str:  # fmt: skip
        """The recipe in another `form`: `yaml`, `python` or `markdown`."""
        params = {"width": width, "depth": depth, "arm": arm, "format": form}
        return self._file(f"{API}/studies/{study_id}/recipe", params).decode()
