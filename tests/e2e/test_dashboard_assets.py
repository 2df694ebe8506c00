"""What the dashboard's addresses answer, without a browser."""

import gzip
import re

import httpx
import pytest

from tests.e2e.seeding import Seeded

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def page(site: Seeded) -> str:
    return httpx.get(f"{site.url}/studies/{site.ids['quickstart']}").text


def test_plotly_comes_gzipped_from_the_installed_wheel_and_is_cached_for_good(site: Seeded, page: str) -> None:
    found = re.search(r'data-plotly="(/static/plotly-[0-9a-f]{12}\.js)"', page)
    assert found is not None
    with httpx.stream("GET", site.url + found[1], headers={"Accept-Encoding": "gzip"}) as answer:
        raw = b"".join(answer.iter_raw())
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert answer.headers["Content-Type"].startswith("text/javascript")
    assert len(raw) < 1_800_000
    assert b"plotly.js v" in gzip.decompress(raw)[:100]
    plain = httpx.get(site.url + found[1], headers={"Accept-Encoding": "identity"})
    assert plain.content == gzip.decompress(raw)


def test_every_asset_of_a_page_exists_under_this_version_only(site: Seeded, page: str) -> None:
    paths = re.findall(r'(?:src|href)="(/static/[^"]+)"', page)
    assert len(paths) >= 5
    for path in paths:
        assert httpx.get(site.url + path).status_code == 200, path
    other = re.sub(r"/static/[0-9a-f]{12}/", "/static/000000000000/", paths[0])
    assert httpx.get(site.url + other).status_code == 404
    assert httpx.get(site.url + "/static/../../pyproject.toml").status_code == 404
    assert httpx.get(site.url + "/static/%2e%2e/templates/base.html").status_code == 404


def test_the_policy_bars_everything_inline(site: Seeded, page: str) -> None:
    policy = httpx.get(site.url).headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert " style=" not in page
    assert not re.search(r"<script(?![^>]*\bsrc=)", page)
    assert not re.search(r"\son[a-z]+=", page)


def test_reports_download(site: Seeded) -> None:
    address = f"{site.url}/studies/{site.ids['quickstart']}/report"
    markdown = httpx.get(f"{address}.md")
    assert markdown.headers["Content-Disposition"].endswith('-report.md"')
    assert markdown.text.startswith("# quickstart: Set 2⁻⁴·")
    assert "| adamw-sp | drifts |" in markdown.text
    assert httpx.get(f"{address}.html").text.startswith("<!doctype html>")
    assert httpx.get(f"{address}.docx").status_code == 404


def test_unknown_addresses_of_the_api_stay_the_apis(site: Seeded) -> None:
    answer = httpx.get(f"{site.url}/api/v1/nothing")
    assert answer.status_code == 404
    assert answer.headers["Content-Type"].startswith("application/problem+json")


@pytest.mark.parametrize(
    "query", ["?size=-1", "?size=abc&arm=none", "?recipe_width=0", "?recipe_width=", "?recipe_arm=x"]
)
def test_odd_queries_show_the_page(site: Seeded, query: str) -> None:
    assert httpx.get(f"{site.url}/studies/{site.ids['quickstart']}{query}").status_code == 200
