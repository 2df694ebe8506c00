"""A study of a thousand trials: its pages paint within a second and answer a hand within a tenth of one."""

from pathlib import Path

import pytest

from mutransfer.plan import estimate
from tests.e2e.browsing import Visitor, drawn
from tests.e2e.samples import simulate, study_spec
from tests.e2e.seeding import Seeded, Seeder

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
TRIES = 10  # other work on the machine must not decide: the best of up to so many counts

PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
SWITCH = """
async (view) => {
  const begun = performance.now();
  document.querySelector(`#loss-lr [data-view="${view}"]`).click();
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  return performance.now() - begun;
}
"""


@pytest.fixture(scope="module")
def large(site: Seeded) -> str:
    """A completed study with more than a thousand trials; its id."""
    spec = study_spec("a-thousand-trials", search={"seeds": {"min": 9, "max": 9}})
    simulation = simulate(spec)
    assert len(simulation.trials) >= 1000, (len(simulation.trials), estimate(spec, vocab=97).trials_expected)
    return Seeder(site).complete(simulation)


def test_it_paints_within_a_second(visitor: Visitor, large: str) -> None:
    for path in (f"/studies/{large}", f"/studies/{large}/trials", "/"):
        paints: list[float] = []
        while not paints or (min(paints) > 1000 and len(paints) < TRIES):
            page = visitor.open(path)
            page.wait_for_function(f"() => {PAINT} > 0")
            paints.append(page.evaluate(PAINT))
        assert min(paints) <= 1000, (path, paints)


def test_a_control_answers_within_a_tenth_of_a_second(visitor: Visitor, large: str, pictures: Path) -> None:
    page = visitor.open(f"/studies/{large}", charts=True)
    page.locator("#loss-lr").scroll_into_view_if_needed()
    times = [page.evaluate(SWITCH, view) for view in (1, 0) * (TRIES // 2)]
    assert min(times) <= 100, times
    page.locator("#loss-lr").screenshot(path=pictures / "a-thousand-trials.png")


def test_its_trials_come_page_by_page(visitor: Visitor, large: str) -> None:
    page = visitor.open(f"/studies/{large}/trials?arm=muon-mup")
    seen: list[str] = []
    while True:
        seen += page.locator("#trials tbody code").all_inner_texts()
        more = page.get_by_role("link", name="More trials")
        if not more.count():
            break
        more.click()
        page.wait_for_load_state()
    assert len(seen) > 300
    assert len(set(seen)) == len(seen)
    page.goto(f"{visitor.url}/studies/{large}?arm=muon-mup&size=64#training")
    drawn(page)
