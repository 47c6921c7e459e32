"""The page in Debian's Chromium, driven by Playwright, on a real server."""

import os
import re
import shutil
import urllib.parse

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

from tests.trainer.server.conftest import HOSTILE, VIDEO_S

TOKEN = "a-token-of-this-test-0123456789"
PHONE = {"width": 390, "height": 844}

expect.set_options(timeout=30_000)


@pytest.fixture(scope="module")
def browser():
    program = shutil.which("chromium")
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail("there is no chromium: `make system` installs it")
        pytest.skip("there is no chromium: `make system` installs it")
    with sync_playwright() as playwright:
        switches = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=program, args=switches)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """Return a function that opens an address. No page may log an error or call another host."""
    faults, contexts = [], []

    def log(told):
        # The sign-in page itself comes with the status 401, which Chromium logs.
        if told.type == "error" and "401" not in told.text:
            faults.append(told.text)

    def watch(request):
        host = urllib.parse.urlsplit(request.url).hostname
        if host != "127.0.0.1" and not request.url.startswith(("data:", "blob:")):
            faults.append(f"request of {request.url}")

    def open_page(address, **options):
        context = browser.new_context(**({"reduced_motion": "reduce"} | options))
        context.set_default_timeout(20_000)
        contexts.append(context)
        context.on("request", watch)
        page = context.new_page()
        page.on("console", log)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: faults.append(f"dialog {dialog.message}"))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


def settled(page):
    """Wait until all films and structures have come."""
    page.wait_for_load_state("networkidle")
    expect(page.locator("[aria-busy]")).to_have_count(0)


def numbers(page):
    return [int(one.get_attribute("data-number") or -1) for one in page.locator(".card").all()]


def pixels(page, selector):
    """Return a hash of the pixels of each canvas, so that changes are seen."""
    return page.evaluate(
        """selector => [...document.querySelectorAll(selector)].map(canvas => {
          const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
          let hash = 0;
          for (const value of data) hash = (hash * 31 + value) | 0;
          return hash;
        })""",
        selector,
    )


def test_search_chips_and_heat_maps(service, serve, visit):
    page = visit(serve(service))
    expect(page.locator("#about")).to_contain_text("30 clips")
    expect(page.locator(".wall li")).to_have_count(12)
    page.keyboard.press("/")
    page.keyboard.type("a red ring")
    page.keyboard.press("Enter")
    expect(page.locator(".card")).to_have_count(12)
    expect(page.locator("#status")).to_have_text("Clips 1 to 12, the most similar first")
    assert page.url.endswith("?text=a+red+ring")
    chip = page.get_by_role("button", name="red ring", exact=True).first
    expect(chip).to_have_attribute("aria-pressed", "true")
    settled(page)
    lit = pixels(page, ".card:first-child canvas")
    chip.click()
    expect(chip).to_have_attribute("aria-pressed", "false")
    page.mouse.move(0, 0)
    dark = pixels(page, ".card:first-child canvas")
    assert lit[0] != dark[0] and lit[1] != dark[1]  # the stage and the strip
    assert lit[2] == dark[2]  # the windows
    assert len(set(dark)) == 3
    page.get_by_label("Another noun to locate").fill("blue disc")
    page.get_by_role("button", name="Add").click()
    expect(page.locator("#chips .chip")).to_have_count(2)
    settled(page)
    assert pixels(page, ".card:first-child canvas")[0] != dark[0]
    page.get_by_role("button", name="Remove blue disc").click()
    expect(page.locator("#chips .chip")).to_have_count(1)


def test_an_address_reproduces_the_view(service, serve, visit):
    address = serve(service)
    page = visit(f"{address}?text=a+red+ring&by_video=1&longest=1.1&noun=sky&off=red+ring&page=1")
    expect(page.locator("#chips .chip")).to_have_count(2)
    expect(page.locator(".chip", has_text="red ring")).to_have_attribute("aria-pressed", "false")
    expect(page.locator("#filters")).to_have_attribute("open", "")
    expect(page.get_by_label("At most, seconds")).to_have_value("1.1")
    expect(page.get_by_label("One clip a video")).to_be_checked()
    before = numbers(page)
    assert 0 < len(before) <= 12
    page.locator(".card .stage").first.click()
    expect(page.locator("dialog")).to_be_visible()
    second = visit(page.url)
    expect(second.locator("dialog")).to_be_visible()
    assert numbers(second) == before
    title = page.locator("#clip-title").inner_text()
    expect(second.locator("#clip-title")).to_have_text(title)
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_be_hidden()
    assert "clip=" not in page.url


def test_more_like_this_filters_and_pages(service, serve, visit):
    page = visit(f"{serve(service)}?text=a+red+ring")
    expect(page.locator(".card")).to_have_count(12)
    first = numbers(page)[0]
    page.get_by_role("button", name="More like clip 1", exact=True).click()
    expect(page.locator("#like")).to_be_visible()
    expect(page.locator(f'.card[data-number="{first}"]')).to_have_count(0)
    assert f"like={first}" in page.url
    expect(page.locator("#results")).to_be_focused()
    expect(page.locator(".card")).to_have_count(12)
    listed = numbers(page)
    for shown in ("13 to 24", "25 to 29"):
        page.get_by_role("button", name="Next").click()
        expect(page.locator("#status")).to_contain_text(shown)
        listed += numbers(page)
    assert sorted([*listed, first]) == list(range(30))
    expect(page.get_by_role("button", name="Next")).to_be_disabled()
    page.go_back()
    expect(page.locator("#page")).to_have_text("Page 2")
    page.locator("summary").click()
    page.get_by_label("Label").select_option("falling")
    page.get_by_role("button", name="Apply").click()
    expect(page.locator("#filter-count")).to_have_text("(1)")
    expect(page.locator("#status")).to_contain_text("Clips 1 to 12")
    assert all(number % 2 for number in numbers(page))
    page.get_by_label("Cosine at least").fill("1")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_have_text("No clip fits the filters")


def test_hostile_texts_stay_texts(service, serve, visit):
    page = visit(f"{serve(service)}?clip=1&text={urllib.parse.quote(HOSTILE)}&noun=%3Cb%3E")
    expect(page.locator("#clip-title")).to_have_text(HOSTILE)
    expect(page.locator("dialog dd", has_text="etc/passwd").first).to_be_visible()
    settled(page)
    assert page.locator("img").count() == 0 and page.locator("#chips b").count() == 0
    assert "<b>bold</b>" in (page.locator("#search select[name=label]").text_content() or "")


@pytest.mark.slow
def test_the_video_and_its_span(service, serve, visit):
    page = visit(f"{serve(service)}?clip=2&text=ring")
    video = page.locator("video[data-ready]")
    expect(video).to_be_attached()
    found = page.evaluate(
        """() => {
          const [line, span] = [".timeline", ".timeline .span"].map(
            (name) => document.querySelector(name).getBoundingClientRect());
          return [(span.left - line.left) / line.width, span.width / line.width];
        }"""
    )
    assert found == pytest.approx([2 / VIDEO_S, 1.5 / VIDEO_S], abs=0.01)
    page.get_by_role("button", name="Play the span").click()
    expect(video).to_have_js_property("paused", False)
    expect(video).to_have_js_property("paused", True, timeout=20_000)
    assert 3.4 < video.evaluate("video => video.currentTime") < 4.5


@pytest.mark.slow
def test_films_play_and_stop(service, serve, visit):
    page = visit(f"{serve(service)}?text=ring", reduced_motion="no-preference")
    expect(page.locator(".card")).to_have_count(12)
    settled(page)
    scrub = page.locator(".card input").first
    expect(scrub).not_to_have_value(scrub.input_value())
    page.get_by_role("button", name="Pause films").click()
    still = scrub.input_value()
    page.wait_for_timeout(600)
    assert scrub.input_value() == still
    scrub.focus()
    page.keyboard.press("Home")
    first = pixels(page, ".card .stage canvas")[0]
    page.keyboard.press("ArrowRight")
    assert scrub.input_value() == "1"
    assert pixels(page, ".card .stage canvas")[0] != first


def test_two_runs_side_by_side(two_runs, serve, visit):
    page = visit(f"{serve(two_runs)}?text=a+red+ring")
    page.get_by_role("button", name="Compare runs").click()
    expect(page.locator(".column")).to_have_count(2)
    expect(page.locator(".column h3 span").first).to_have_text("step 0")
    expect(page.locator(".shared")).to_have_count(24)  # the two runs are the same one
    assert "compare=1" in page.url
    listed = numbers(page)
    assert listed[:12] == listed[12:]
    page.locator(".column").nth(1).locator(".stage").first.click()
    expect(page.locator("dialog dt", has_text="Run")).to_have_count(1)
    assert page.url.endswith(f"clip={listed[0]}&side=1")
    settled(page)
    with page.expect_request(re.compile(f"clips/{listed[0]}/structure.side=1")):
        page.reload()
    expect(page.locator("dialog")).to_be_visible()


@pytest.mark.parametrize(
    "view",
    [
        "?text=a+red+ring&not=x&by_video=1&noun=sky",
        pytest.param("", marks=pytest.mark.slow),
        pytest.param("?text=ring&clip=2", marks=pytest.mark.slow),
        pytest.param("docs", marks=pytest.mark.slow),
    ],
)
def test_axe_finds_no_serious_fault(service, serve, visit, view):
    page = visit(f"{serve(service)}{view}", bypass_csp=True)
    settled(page)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        found = Axe().run(page).response["violations"]
        serious = [one for one in found if one["impact"] in ("serious", "critical")]
        nodes = [(one["id"], [node["html"] for node in one["nodes"][:3]]) for one in serious]
        assert serious == [], (scheme, nodes)


@pytest.mark.slow
@pytest.mark.parametrize("view", ["", "?text=a+red+ring&by_video=1", "?text=ring&clip=2", "docs"])
def test_a_phone_shows_the_whole_page(service, serve, visit, view):
    page = visit(f"{serve(service)}{view}", viewport=PHONE)
    settled(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    if "clip" in view:
        box = page.locator("dialog").bounding_box()
        assert box and box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"]
        assert page.evaluate(
            "(d => d.scrollWidth <= d.clientWidth)(document.querySelector('dialog'))"
        )


@pytest.mark.slow
def test_a_token_opens_the_page_at_its_address(service, serve, visit):
    address = serve(service, token=TOKEN)
    page = visit(f"{address}?text=a+red+ring")
    page.get_by_label("The server’s token").fill(TOKEN)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator(".card")).to_have_count(12)
    assert page.url.endswith("?text=a+red+ring")
    assert re.fullmatch(r"svilm-\d+", page.context.cookies()[0].get("name", ""))


def test_the_first_paint_takes_less_than_a_second(service, serve, visit):
    page = visit(f"{serve(service)}?text=a+red+ring")
    settled(page)
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    assert paint < 1000
