"""The report of a promotion as a person opens it: a file, without a server and without scripts."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from browser_world import LARGEST_PNG, chromium, screenshot
from story_world import FIRST, JOB, SECOND, write_story
from workspace_world import end_gateway

from toolkit.client import disconnect

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """The three reports of the licence review's story, and a browser page."""
    base = tmp_path_factory.mktemp("report")
    (base / "ws").mkdir()
    story = write_story(base / "ws")
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(story.root)
            story.begin()
            first, second = story.offer(FIRST), story.offer(SECOND)
            assert story.approve()[-1][1].code == 0
            story.tidy()
            third = story.offer(SECOND)
        with chromium(base / "chromium") as browser:
            made = [Path(done.json["report"]) for done in (first, second, third)]
            yield SimpleNamespace(browser=browser, paths=made)
    finally:
        disconnect()
        end_gateway(story.workspace)


def opened(reports, number: int):
    """Open one report; nothing may be asked of a network, and nothing may fail."""
    page = reports.browser.new_page()
    page.set_viewport_size({"width": 1100, "height": 900})
    asked, failed = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: failed.append(message.text))
    page.goto(reports.paths[number].as_uri())
    assert asked == [reports.paths[number].as_uri()]
    assert failed == []
    # Nothing is wider than the page.
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    return page


def test_a_refusal_says_what_was_missed(reports):
    """The verdict, the step that failed, the bound and the limit, before anything else."""
    page = opened(reports, 0)
    assert page.title() == f"{JOB}: refused"
    assert page.get_by_text("refused").first.is_visible()
    assert page.get_by_text("which misses the minimum 0.75").first.is_visible()
    page.close()


def test_an_accepted_version_says_so(reports):
    """Its steps have passed, and every gate has its picture."""
    page = opened(reports, 1)
    assert page.get_by_text("passed every step of the gate").is_visible()
    assert page.locator("svg").count() == 2  # the third had nothing to compare with
    page.close()


def test_a_hair_is_shown_case_by_case(reports):
    """Two limits are kept, the comparison is open, and the two cases stand with both answers."""
    page = opened(reports, 2)
    part = page.locator("h2", has_text="Against production")
    assert part.is_visible()
    rows = page.locator("h2:has-text('Against production') ~ table").first.inner_text()
    assert re.search(r"cryptography\s+worse", rows)
    assert re.search(r"packaging\s+worse", rows)
    end = page.locator("h2", has_text="Cases to look at").bounding_box()["y"]
    page.set_viewport_size({"width": 1100, "height": int(end)})
    assert screenshot(page, "promotion-refused").stat().st_size < LARGEST_PNG
    page.close()
