"""The outline figure of a camera in a real browser: it moves, it says what it is and how sure, and it goes when old."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from benchmarks.cloud.simulated_ward import SimulatedWard
from tests.support.bridge_factory import make_manifest
from tests.support.browser import DESK, PHONE, Visit, faults_of_access, visiting
from tests.support.contour_factory import make_contour
from wire.protocol.contour import Contour

HERE = "ward-3/room-12"
VIEW = f"camera/{HERE}"
LABEL = {
    "en": "An illustration from the noised code, not a picture.",
    "de": "Eine Zeichnung aus dem verrauschten Code, kein Bild.",
    "fr": "Une illustration tirée du code bruité, pas une image.",
    "es": "Una ilustración del código con ruido, no una imagen.",
}
COUNT_CHANGES = """() => new Promise((done) => {
    let count = 0;
    const path = document.querySelector(".figure path:last-child");
    const watch = new MutationObserver((found) => { count += found.length; });
    watch.observe(path, { attributes: true, attributeFilter: ["d"] });
    setTimeout(() => { watch.disconnect(); done(count); }, 3000);
})"""


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatedWard]:
    made = SimulatedWard(tmp_path_factory.mktemp("ward"), make_manifest(), [HERE, "ward-3/stairs"])
    made.verdict(HERE)
    with made:
        yield made


@contextmanager
def figures(ward: SimulatedWard, *each: Contour, camera: str = HERE) -> Iterator[None]:
    """A figure a second for the block, these in turn."""
    over = threading.Event()

    def tell() -> None:
        slot = 0
        while not over.is_set():
            ward.contour(camera, each[slot % len(each)])
            slot += 1
            over.wait(1.0)

    thread = threading.Thread(target=tell)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def look(visit: Visit) -> None:
    """Go to the camera, and wait for its figure."""
    visit.see(VIEW)
    visit.page.locator(".figure:not([hidden])").wait_for()
    expect(visit.page.locator(".contour .says")).not_to_be_empty()


def shape(holds: str) -> str:
    """An expression about b, the box of the first figure."""
    return f"((b) => {holds})(document.querySelector('.figure g').getBBox())"


def test_a_figure_is_tall_and_then_lies_and_moves_between(browser: Browser, ward: SimulatedWard) -> None:
    with visiting(browser, ward, "viewer") as visit:
        with figures(ward, make_contour(lying=0.0, several=0.0)):
            look(visit)
            visit.wait(shape("b.height > 90 && b.width < 0.7 * b.height"))
        with figures(ward, make_contour(lying=1.0, several=0.0)):
            visit.wait(shape("b.width > 90 && b.width > 1.4 * b.height"))
        with figures(ward, make_contour(lying=0.0), make_contour(lying=1.0)):
            assert visit.page.evaluate(COUNT_CHANGES) >= 12  # 24 on a machine with nothing else to do
        assert visit.faults == []


def test_it_says_what_it_is_and_how_sure(browser: Browser, ward: SimulatedWard) -> None:
    with visiting(browser, ward, "viewer") as visit, figures(ward, make_contour(lying=0.7, several=0.2)):
        look(visit)
        text = visit.page.locator(".contour").inner_text()
        assert LABEL["en"] in text and "one person 80 %, lying or falling 70 %, in one place 75 %" in text
        label = str(visit.page.locator(".figure").get_attribute("aria-label"))
        assert label.startswith("Illustration, not a picture: ") and "lying or falling 70 %" in label


def test_an_unsure_figure_is_blurred_and_a_second_one_as_likely_as_it_is(browser: Browser, ward: SimulatedWard) -> None:
    sharp, widths = make_contour(several=0.0), []
    blurred = make_contour(several=0.5)
    for outline in (sharp.first, sharp.second):
        outline.spread[:] = 0.01
    for outline in (blurred.first, blurred.second):
        outline.spread[:] = 0.3
    between = """[...document.querySelectorAll('.figure g:first-child path')].map((p) => p.getBBox().width)"""
    with visiting(browser, ward, "viewer") as visit:
        for made, other in ((sharp, "0.000"), (blurred, "0.500")):
            with figures(ward, made):
                look(visit)
                visit.wait(f"document.querySelectorAll('.figure g')[1].getAttribute('opacity') === '{other}'")
                found = visit.page.evaluate(between)
                widths.append(max(found) - min(found))
    assert widths[1] > 5 * widths[0]


def test_what_is_not_known_is_not_said(browser: Browser, ward: SimulatedWard) -> None:
    with visiting(browser, ward, "viewer") as visit:
        with figures(ward, make_contour(posture=None, moving=None, several=0.9)):
            look(visit)
            assert visit.page.locator(".contour .says").inner_text() == "several people 90 %"
        with figures(ward, make_contour(count={"nobody": 0.8, "one": 0.1, "several": 0.1})):
            visit.wait("document.querySelector('.contour .says').textContent === 'nobody 80 %'")
        with figures(ward, make_contour(posture=None, count=None, moving=None, unsure=True)):
            visit.wait("document.querySelector('.contour .says').textContent === 'nothing can be told'")
            assert visit.page.get_by_text("unlike all known ones").is_visible()


def test_a_figure_goes_when_it_is_old(browser: Browser, ward: SimulatedWard) -> None:
    with visiting(browser, ward, "viewer") as visit:
        visit.see(VIEW)
        nothing = visit.page.get_by_text("nothing that is of now can be drawn")
        nothing.wait_for()
        assert not visit.page.locator(".figure").is_visible()
        with figures(ward, make_contour()):
            look(visit)
            assert not nothing.is_visible()
        nothing.wait_for()
        assert not visit.page.locator(".figure").is_visible()


def test_who_wants_less_motion_gets_a_still_figure(browser: Browser, ward: SimulatedWard) -> None:
    with (
        visiting(browser, ward, "viewer", reduced_motion="reduce") as visit,
        figures(ward, make_contour(lying=0.0), make_contour(lying=1.0)),
    ):
        look(visit)
        assert visit.page.evaluate(COUNT_CHANGES) <= 1


def test_another_cameras_figures_are_not_shown(browser: Browser, ward: SimulatedWard) -> None:
    with visiting(browser, ward, "viewer") as visit, figures(ward, make_contour(), camera="ward-3/stairs"):
        visit.see(VIEW)
        visit.page.wait_for_timeout(2500)
        assert not visit.page.locator(".figure").is_visible()


def test_a_bridge_that_draws_none_shows_no_place_for_them(browser: Browser, tmp_path: Path) -> None:
    made = SimulatedWard(tmp_path, make_manifest(), [HERE], draws=False)
    with made, visiting(browser, made, "viewer") as visit:
        visit.see(VIEW)
        assert not visit.page.locator(".contour").is_visible()
        assert not any("kind=contour" in address for address in visit.asked)


def test_a_stream_of_contours_names_its_camera(browser: Browser, ward: SimulatedWard) -> None:
    with visiting(browser, ward, "viewer") as visit:
        ask = """(path) => fetch(path, { headers: { Authorization:
            `Bearer ${sessionStorage.getItem("veilsight-token")}` } }).then((answer) => answer.status)"""
        assert visit.page.evaluate(ask, "/v1/stream?kind=contour") == 422
        assert visit.page.evaluate(ask, "/v1/stream?kind=contour&camera=ward-9/none") in (200, 404)


def test_what_is_no_figure_is_passed_over(browser: Browser, ward: SimulatedWard) -> None:
    junk = [
        "null",
        "{}",
        '{ first: "%%%", second: "" }',
        '{ first: "AAAA", second: "AAAA", lying: "x" }',
        "{ first: 7 }",
    ]
    with visiting(browser, ward) as visit:
        visit.page.goto(ward.url)
        for text in junk:
            assert visit.page.evaluate(f"import('/static/contour.js').then((m) => m.read({text}))") is None
        assert visit.faults == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_it_has_no_fault_of_access(
    browser: Browser, ward: SimulatedWard, scheme: str, size: tuple[int, int], tmp_path: Path
) -> None:
    how = {"color_scheme": scheme, "viewport": {"width": size[0], "height": size[1]}, "bypass_csp": True}
    with (
        visiting(browser, ward, "viewer", **how) as visit,
        figures(ward, make_contour(lying=0.4, several=0.6, unsure=True)),
    ):
        look(visit)
        assert [*faults_of_access(visit.page), *visit.too_wide] == []
        visit.page.screenshot(path=str(tmp_path / f"{scheme}-{size[0]}.png"), full_page=True)


def test_every_language_has_its_words(browser: Browser, ward: SimulatedWard) -> None:
    with visiting(browser, ward, "viewer") as visit, figures(ward, make_contour(lying=0.7)):
        for name, label in LABEL.items():
            visit.see("settings")
            visit.page.select_option("#language", name)
            look(visit)
            assert label in visit.page.locator(".contour").inner_text()
            assert "{" not in visit.page.locator(".contour").inner_text()
