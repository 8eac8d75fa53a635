"""The page under load, for a few seconds: every verdict that is made is shown, and frames are counted."""

from __future__ import annotations

import json

import pytest

from benchmarks.cloud import page_load
from benchmarks.cloud.page_load import COMMAND, campaign, chromium
from tests.support.bridge_factory import make_manifest
from tests.support.services import find
from wire.errors import ConfigError


def test_a_short_campaign_shows_what_was_made_and_counts_frames() -> None:
    find("chromium")
    with chromium() as browser:
        found = campaign(browser, make_manifest(), cameras=20, seconds=3.0, empty_s=1.0)
    json.dumps(found)
    assert found["made"] == found["shown"] >= 20
    assert found["known_ms"] > 0.0 and page_load.judge(found, timed=False) == []
    assert found["frames"] > 10 and found["empty_frames"] > 10 and 0.0 < found["busy_share"] < 1.0


def test_a_page_is_judged_by_what_must_hold() -> None:
    good = {
        "made": 9,
        "shown": 9,
        "dropped": 3,
        "dropped_share": 0.001,
        "empty_dropped_share": 0.001,
        "known_ms": 990.0,
    }
    assert page_load.judge(good, timed=True) == []
    for changed, words in (
        ({"shown": 7}, "2 of 9 verdicts were not shown"),
        ({"dropped_share": 0.002}, "3 frames were dropped, 0.20%; 0.10% of an empty page's"),
        ({"known_ms": 1010.0}, "an open alert was shown after 1010 ms; 1000 at most"),
    ):
        assert page_load.judge({**good, **changed}, timed=True) == [words]
        assert page_load.judge({**good, **changed}, timed=False) == ([words] if "shown" in changed else [])


def test_a_frame_that_comes_late_counts_as_dropped() -> None:
    """A page that blocks for 300 ms in each second."""
    find("chromium")
    with chromium() as browser, browser.new_page() as page:
        page.evaluate(
            "setInterval(() => { const end = performance.now() + 300; while (performance.now() < end); }, 1000)"
        )
        found = page_load._frames(page, 3.0)
    assert found["dropped"] >= 15 and found["long_tasks"] >= 1 and found["worst_ms"] > 250


def test_without_a_browser_it_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="apt-get install chromium"), chromium():
        pass
    assert COMMAND.parser().parse_args([]).cameras == 100
