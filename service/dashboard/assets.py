"""Static files: ours from this package, Plotly's out of the installed wheel; gzipped once, cached for good by content.

Our files share one hash (`/static/HASH/page.js`), so that ES modules import each other by relative paths; the parts of
the stylesheet are served as one. Plotly has a hash of its own, so that it stays cached when ours change.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
import gzip
import hashlib
from importlib.resources import files
import re

from fastapi import Request, Response

from service.reports.stylesheet import stylesheet

_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
FOREVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True)
class Asset:
    """One file: its bytes and media type."""

    body: bytes
    media_type: str

    @cached_property
    def compressed(self) -> bytes:
        """The gzipped bytes, the same for the same content."""
        return gzip.compress(self.body, compresslevel=6, mtime=0)

    def response(self, request: Request, *, cache: str) -> Response:
        """The file, gzipped for those who take it."""
        return packed(request, self.body, self.media_type, cache=cache, compressed=lambda: self.compressed)


def packed(
    request: Request, body: bytes, media_type: str, *, cache: str, compressed: Callable[[], bytes] | None = None
) -> Response:
    """`body` as a response, gzipped when the client takes that (`compressed` supplies bytes made before)."""
    headers = {"Cache-Control": cache, "Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        body = compressed() if compressed is not None else gzip.compress(body, compresslevel=5, mtime=0)
        headers["Content-Encoding"] = "gzip"
    return Response(body, media_type=media_type, headers=headers)


def _digest(*bodies: bytes) -> str:
    whole = hashlib.sha256()
    for body in bodies:
        whole.update(len(body).to_bytes(8, "big") + body)
    return whole.hexdigest()[:12]


class Assets:
    """Every static file of the dashboard, read at construction."""

    def __init__(self) -> None:
        folder = files("service.dashboard") / "static"
        self._ours = {
            entry.name: Asset(entry.read_bytes(), _TYPES[entry.name.rpartition(".")[2]])
            for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
            if entry.is_file()
        }
        self._ours["style.css"] = Asset(stylesheet().encode(), _TYPES["css"])
        self._plotly = Asset((files("plotly") / "package_data" / "plotly.min.js").read_bytes(), "text/javascript")
        self.hash = _digest(*(asset.body for asset in self._ours.values()))
        self.plotly_hash = _digest(self._plotly.body)

    def url(self, name: str) -> str:
        """Where one of our files is served. Raises KeyError for a file that does not exist."""
        if name not in self._ours:
            raise KeyError(name)
        return f"/static/{self.hash}/{name}"

    @property
    def plotly_url(self) -> str:
        """Where Plotly's JavaScript is served."""
        return f"/static/plotly-{self.plotly_hash}.js"

    def find(self, path: str) -> Asset | None:
        """The file at `/static/{path}`; None for an unknown one or for content of another version."""
        if path == self.plotly_url.removeprefix("/static/"):
            return self._plotly
        version, _, name = path.partition("/")
        return self._ours.get(name) if version == self.hash else None

    @cached_property
    def style_ids(self) -> tuple[str, ...]:
        """Ids of the style elements that Plotly would add by itself, which the Content-Security-Policy bars.

        Pages carry inert elements with these ids instead: Plotly finds them and leaves its styles to our stylesheet.
        """
        found = re.findall(rb'getElementById\("([0-9a-f]{40,64})"\)', self._plotly.body)
        return ("plotly.js-style-global", *dict.fromkeys(match.decode() for match in found))
