"""A real headless Chromium before the bridge's page, and what every test of the page asks of it.

The distribution's Chromium, driven by Playwright; where there is none, the tests skip and say so.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, expect

from benchmarks.cloud import page_load
from benchmarks.cloud.simulated_ward import SimulatedWard
from tests.support.services import find, until

__all__ = ["DESK", "PHONE", "Visit", "chromium", "faults_of_access", "visiting"]

PHONE, DESK = (360, 740), (1280, 860)
PATIENCE_MS = 60_000
expect.set_options(timeout=PATIENCE_MS)
_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
_MARKED = "document.querySelector('main')?.firstElementChild?.setAttribute('data-former', '')"
_COMPLETE = """!document.querySelector("main [data-former]") &&
    [...document.querySelectorAll("main [role=status]")].every((each) => !each.textContent.includes("…"))"""
_SETTLED = "Promise.all(document.getAnimations().map(each => each.finished.catch(() => 0)))"


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser for the block; the test skips where there is none."""
    find("chromium")
    with page_load.chromium() as browser:
        yield browser


class Visit:
    """A page in a context of its own, and everything that it should not have done.

    Attributes:
        page: The page.
        context: Its context.
        faults: What the browser complained about: refused by the policy, uncaught, failed.
        asked: Every address that was asked for.
    """

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.context, self.url = context, url
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.faults: list[str] = []
        self.asked: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", lambda said: self.faults.append(said.text) if said.type == "error" else None)
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("dialog", lambda dialog: self._dialog(dialog))

    def _dialog(self, dialog: Any) -> None:
        self.faults.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    def sign_in(self, token: str) -> None:
        """Sign in as a person does, and wait until the page is live."""
        self.page.goto(f"{self.url}/")
        self.page.fill("#token", token)
        self.page.keyboard.press("Enter")
        self.page.wait_for_selector(".pill[data-state=live]")

    def see(self, view: str) -> None:
        """Go to a view, and wait until it stands in place of the former one and has what it asks for."""
        address = f"{self.url}/#/{view}"
        if self.page.url != address:
            self.page.evaluate(_MARKED)
        self.page.goto(address)
        self.wait(_COMPLETE)

    def wait(self, holds: str) -> None:
        """Return once an expression holds; asked from here, since the page's policy lets no text run there."""
        until(lambda: bool(self.page.evaluate(holds)))

    @property
    def too_wide(self) -> list[str]:
        """Elements that stick out at the right, where the page can be moved sideways."""
        found: list[str] = self.page.evaluate(
            """() => document.documentElement.scrollWidth <= innerWidth ? [] :
                [...document.querySelectorAll("*")].filter((e) => e.getBoundingClientRect().right > innerWidth + 1)
                    .map((e) => `${e.tagName}.${e.className}`)"""
        )
        return found


@contextmanager
def visiting(browser: Browser, ward: SimulatedWard, role: str = "", **how: Any) -> Iterator[Visit]:
    """A visit to a ward's page, signed in where a role is named; `how` is for the browser's context."""
    context = browser.new_context(**{"locale": "en-GB", "viewport": _size(DESK), **how})
    try:
        visit = Visit(context, ward.url)
        if role:
            visit.sign_in(ward.tokens[role])
        yield visit
    finally:
        context.close()


def _size(size: tuple[int, int]) -> dict[str, int]:
    return {"width": size[0], "height": size[1]}


def faults_of_access(page: Page) -> list[str]:
    """What axe-core finds against WCAG, levels A and AA; the context must have been made with bypass_csp."""
    found = importlib.util.find_spec("axe_playwright_python")
    assert found is not None and found.submodule_search_locations
    page.evaluate(_SETTLED)
    page.evaluate(Path(found.submodule_search_locations[0], "axe.min.js").read_text())
    how = json.dumps({"runOnly": _RULES, "resultTypes": ["violations"]})
    violations = page.evaluate(f"axe.run({how}).then((results) => results.violations)")
    return [
        f"{each['id']}: {each['help']}: {node['html'][:200]} {node.get('failureSummary', '')}"
        for each in violations
        for node in each["nodes"]
    ]
