"""Every view of the page in a real browser: both schemes, a phone, four languages, the keyboard alone, WCAG AA."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from benchmarks.cloud.simulated_ward import SimulatedWard
from tests.support.bridge_factory import make_manifest
from tests.support.browser import DESK, PHONE, faults_of_access, visiting

CAMERAS = [f"ward-{ward}/{room}" for ward in (3, 4) for room in ("corridor", "day-room", "room-12", "stairs")]
HERE = "ward-3/room-12"
VIEWS = ("inbox", "cameras", f"camera/{HERE}", f"device/{HERE}", "known", f"visitors/{HERE}", "settings")
LANGUAGES = {"en": "Alerts", "de": "Alarme", "fr": "Alertes", "es": "Alertas"}


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatedWard]:
    """Alerts of every kind, and half a minute of verdicts."""
    made, now_s = SimulatedWard(tmp_path_factory.mktemp("ward"), make_manifest(), CAMERAS), time.time()
    for slot in range(30):
        for name in CAMERAS[:-1]:
            falls = name == HERE and slot > 20
            at_s, sentence = now_s - 30 + slot, "One person falls to the left." if falls else ""
            made.verdict(name, label="fall" if falls else "", at_s=at_s, unsure=slot % 9 == 0, sentence=sentence)
    made.alert("ward-4/corridor", "fight", at_s=now_s - 900, sentence="Two people push each other.")
    made.alert("ward-4/corridor", "fight", raised=False, at_s=now_s - 800)
    made.alert(HERE, "fall", at_s=now_s - 9, sentence="One person falls to the left.")
    made.alert("ward-4/stairs", "stale", at_s=now_s - 200, sentence="nothing has come for 31 s")
    made.alert("ward-3/stairs", "a kind of the future", at_s=now_s - 100)
    made.counts["ward-4/stairs"] = {"offline": True, "refused": {"flood": 12}, "gaps": 3}
    with made:
        yield made


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_every_view_has_no_fault_of_access(
    browser: Browser, ward: SimulatedWard, scheme: str, size: tuple[int, int]
) -> None:
    how = {"color_scheme": scheme, "viewport": {"width": size[0], "height": size[1]}, "bypass_csp": True}
    with visiting(browser, ward, "", **how) as visit:
        visit.page.goto(ward.url)
        visit.page.wait_for_selector("#token")
        found = {"sign in": faults_of_access(visit.page)}
        visit.sign_in(ward.tokens["nurse"])
        for view in VIEWS:
            visit.see(view)
            if view == "inbox":
                visit.page.get_by_role("button", name="Comment").first.click()
                visit.page.wait_for_selector("textarea")
                visit.page.get_by_role("button", name="Show earlier alerts").click()
            found[view] = [*faults_of_access(visit.page), *visit.too_wide]
            assert visit.page.locator("main h1").is_visible()
        visit.page.goto(f"{ward.url}/visitor/{HERE}")
        visit.page.wait_for_selector("table")
        found["visitor"] = [*faults_of_access(visit.page), *visit.too_wide]
        assert {view: faults for view, faults in found.items() if faults} == {}
        assert visit.page.evaluate("document.documentElement.dataset.scheme") == scheme


def test_a_planted_fault_of_access_is_found(browser: Browser, ward: SimulatedWard) -> None:
    with visiting(browser, ward, "viewer", bypass_csp=True) as visit:
        visit.page.evaluate(
            "document.querySelector('h1').style.color = '#bbb'; document.querySelector('main').append(new Image())"
        )
        found = " ".join(faults_of_access(visit.page))
        assert "color-contrast" in found and "image-alt" in found


def test_the_inbox_begins_with_what_is_severe_and_new(browser: Browser, ward: SimulatedWard) -> None:
    with visiting(browser, ward, "viewer") as visit:
        titles = [text.strip() for text in visit.page.locator("#open h3").all_inner_texts()]
        assert titles == ["Fall", "a kind of the future", "Fight over", "No news from the camera"]
        assert visit.page.title() == "(4) Veilsight"


def test_only_this_server_is_asked_and_the_policy_holds(browser: Browser, ward: SimulatedWard) -> None:
    with visiting(browser, ward, "nurse") as visit:
        for view in VIEWS:
            visit.see(view)
        visit.page.goto(f"{ward.url}/visitor/{HERE}")
        visit.page.wait_for_selector("table")
        assert visit.faults == []
        assert {address.split("/")[2] for address in visit.asked} == {ward.url.split("/")[2]}
        assert not any("vs_" in address for address in visit.asked)  # the token is in no address


def test_health_and_the_last_minute_of_each_camera(browser: Browser, ward: SimulatedWard) -> None:
    ward.verdict(*CAMERAS[:-1])
    ward.verdict(HERE, label="fall")
    with visiting(browser, ward, "viewer") as visit:
        visit.see("cameras")
        cards = visit.page.locator(".camera")
        assert cards.count() == len(CAMERAS)
        assert cards.nth(0).locator(".error").is_visible()  # a risk first
        states = cards.locator(".health").all_inner_texts()
        assert states.count("Offline") == 1 and states.count("Not heard yet") == 0
        strip = visit.page.locator(".camera", has_text="room-12").first.get_by_role("img")
        assert "Fall" in str(strip.get_attribute("aria-label")) and "Quiet" in str(strip.get_attribute("aria-label"))
        drawn = "(c) => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].some((v) => v > 0)"
        assert strip.evaluate(drawn)
        visit.page.fill("#search", "ROOM-12")
        assert cards.count() == 2
        visit.page.fill("#search", "")
        visit.page.check("#only")
        assert cards.count() == 3  # the fall, the offline one, and the kind of the future


def test_children_come_into_any_order_and_one_that_moves_moves_alone(browser: Browser, ward: SimulatedWard) -> None:
    arranged = """async () => {
        const { arrange } = await import("/static/dom.js");
        const all = [...Array(40).keys()].map((number) => {
            const node = document.createElement("li");
            node.textContent = number;
            return node;
        });
        const list = document.createElement("ul");
        const shown = () => [...list.children].map((node) => Number(node.textContent));
        const wrong = [];
        let seed = 1;
        const drawn = (limit) => (seed = (seed * 16807) % 2147483647) % limit;
        for (let turn = 0; turn < 300; turn += 1) {
            const wanted = all.filter(() => drawn(4)).map((node) => [drawn(3) ? node.textContent : drawn(40), node]);
            const nodes = wanted.sort(([a], [b]) => a - b).map(([, node]) => node);
            arrange(list, nodes);
            if (shown().join() !== nodes.map((node) => node.textContent).join()) wrong.push(turn);
        }
        const moves = [];
        for (const [from, to] of [[0, 30], [30, 0], [12, 13]]) {
            arrange(list, all);
            const changes = new MutationObserver(() => {});
            changes.observe(list, { childList: true });
            const nodes = all.filter((_, at) => at !== from);
            nodes.splice(to, 0, all[from]);
            arrange(list, nodes);
            moves.push(changes.takeRecords().flatMap((each) => [...each.addedNodes]).length);
        }
        return [wrong, moves];
    }"""
    with visiting(browser, ward, "viewer") as visit:
        assert visit.page.evaluate(arranged) == [[], [1, 1, 1]]


def test_the_timeline_of_a_camera_goes_on_by_itself(browser: Browser, ward: SimulatedWard) -> None:
    with visiting(browser, ward, "viewer") as visit:
        visit.see("camera/ward-3/corridor")
        first = visit.page.locator("tbody tr").first
        first.wait_for()
        assert "Quiet" in first.inner_text()
        for _ in range(3):
            ward.verdict("ward-3/corridor", label="fight", p=0.71, sentence="Two people wrestle.")
        visit.page.locator("tbody tr", has_text="Two people wrestle.").wait_for()
        assert "Fight" in first.inner_text() and "71 %" in first.inner_text()
        visit.see(f"camera/{HERE}")
        visit.page.locator("tbody tr", has_text="One person falls").first.wait_for()


def test_the_gauge_shows_the_server_s_numbers(browser: Browser, ward: SimulatedWard) -> None:
    with visiting(browser, ward, "viewer") as visit:
        visit.see("known")
        rows = visit.page.evaluate(
            """async () => (await (await fetch("/v1/bounds", { headers: { Authorization:
                `Bearer ${sessionStorage.getItem("veilsight-token")}` } })).json()).cameras"""
        )
        slider = visit.page.locator("#seconds")
        slider.focus()
        visit.page.keyboard.press("Home")
        for row in rows["1"][:6]:
            shown = visit.page.locator(".measure").first.inner_text()
            assert f"at most {row['name_one_of']['1000']} %" in shown
            visit.page.keyboard.press("ArrowRight")
        visit.page.get_by_role("radio", name="4").check()
        visit.page.locator("#seconds").press("End")
        assert "at most 100 %" in visit.page.locator(".measure").first.inner_text()
        assert visit.page.locator(".warned").is_visible()
        assert slider.get_attribute("aria-valuetext") == "24 hr"


def test_four_languages_and_two_schemes_can_be_chosen(browser: Browser, ward: SimulatedWard) -> None:
    with visiting(browser, ward, "viewer", locale="fr-FR") as visit:
        assert visit.page.locator("h1").inner_text() == LANGUAGES["fr"]
        for name, title in LANGUAGES.items():
            visit.see("settings")
            visit.page.select_option("#language", name)
            assert visit.page.locator(".menu a").first.inner_text().strip().startswith(title)
            assert visit.page.evaluate("document.documentElement.lang") == name
        ground = "getComputedStyle(document.body).backgroundColor"
        visit.page.select_option("#scheme", "light")
        light = visit.page.evaluate(ground)
        visit.page.select_option("#scheme", "dark")
        assert visit.page.evaluate(ground) != light
        visit.page.reload()
        visit.page.wait_for_selector(".pill[data-state=live]")
        assert visit.page.evaluate(ground) != light and visit.page.evaluate("document.documentElement.lang") == "es"


def test_every_word_is_there_in_every_language(browser: Browser, ward: SimulatedWard) -> None:
    with visiting(browser, ward) as visit:
        visit.page.goto(ward.url)
        table = visit.page.evaluate("import('/static/words.js').then((words) => words.TABLE)")
    assert len(table) > 150
    for key, row in table.items():
        assert len(row) == len(LANGUAGES) and all(text.strip() for text in row), key
        holes = [sorted(part.split("}")[0] for part in text.split("{")[1:]) for text in row]
        assert all(each == holes[0] for each in holes), key


def test_the_keyboard_alone_is_enough(browser: Browser, ward: SimulatedWard) -> None:
    ward.alert("ward-3/day-room", "fall", sentence="for the keyboard")
    with visiting(browser, ward, "nurse") as visit:
        page = visit.page
        page.locator("#open li", has_text="for the keyboard").wait_for()
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        for _ in range(60):
            page.keyboard.press("Tab")
            label = page.evaluate("document.activeElement.getAttribute('aria-label') ?? ''")
            if label.startswith("I have seen it") and "ward-3/day-room" in label:
                break
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
        page.keyboard.press("Enter")
        page.locator("#open li.answered", has_text="for the keyboard").wait_for()
        # the focus is on the button that is left of this card
        assert "ward-3/day-room" in str(page.evaluate("document.activeElement.getAttribute('aria-label')"))


def test_what_is_tapped_is_large_enough_on_a_phone(browser: Browser, ward: SimulatedWard) -> None:
    small = """() => [...document.querySelectorAll("button, select, .menu a, .button, .check, input[type=range]")]
        .filter((e) => e.offsetParent).map((e) => [e.textContent, e.getBoundingClientRect()])
        .filter(([, box]) => box.height < 44 || box.width < 44).map(([text]) => text)"""
    with visiting(browser, ward, "nurse", viewport={"width": 360, "height": 740}, has_touch=True) as visit:
        for view in VIEWS:
            visit.see(view)
            assert visit.page.evaluate(small) == [], view


def test_the_page_for_visitors_needs_no_token_and_says_the_number(browser: Browser, ward: SimulatedWard) -> None:
    with visiting(browser, ward, locale="de-DE") as visit:
        visit.page.goto(f"{ward.url}/visitor/{HERE}")
        visit.page.wait_for_selector("table")
        text = visit.page.locator("main").inner_text()
        assert "46,4 %" in text and "ward-3 / room-12" in text and "64 ganze Zahlen" in text
        assert visit.faults == []


def test_sound_rings_after_a_tap_and_can_be_turned_off(browser: Browser, ward: SimulatedWard) -> None:
    count = """(() => { window.rung = 0; const start = OscillatorNode.prototype.start;
        OscillatorNode.prototype.start = function (...how) { window.rung += 1; return start.apply(this, how); }; })()"""
    with visiting(browser, ward) as visit:
        visit.context.add_init_script(count)
        visit.sign_in(ward.tokens["nurse"])
        visit.page.locator("h1").click()
        visit.page.locator(".hush[aria-pressed=true]").wait_for()
        before = visit.page.evaluate("window.rung")
        ward.alert("ward-4/day-room", "fall", sentence="it rings")
        visit.wait(f"window.rung > {before}")
        visit.page.locator(".hush").click()
        assert visit.page.locator(".hush").get_attribute("aria-pressed") == "false"
        before = visit.page.evaluate("window.rung")
        ward.alert("ward-4/room-12", "fall", sentence="it does not")
        visit.page.locator("#open li", has_text="it does not").wait_for()
        assert visit.page.evaluate("window.rung") == before
