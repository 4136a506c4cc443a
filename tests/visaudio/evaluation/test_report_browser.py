"""The report page in a real browser, from the disk, as a reader has it (extra `review-test`)."""

from dataclasses import replace

import pytest
from browsing import PATIENCE_S, launched, until
from small_results import small_results

from visaudio.evaluation.html_report import ReportConfig, write_report

pytestmark = pytest.mark.slow  # a browser takes seconds to start
HOSTILE = '<img src=x onerror="window.hacked=1"></script><script>window.hacked=1</script>'


@pytest.fixture(scope="module")
def browser():
    yield from launched()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eval")
    results = small_results(folder / "in", caption=HOSTILE, seconds=6.0)
    results = replace(results, group_titles={"near": HOSTILE})
    return write_report(results, folder / "out", ReportConfig(clips=2)).as_uri()


@pytest.fixture
def page(browser, address):
    page = browser.new_page(viewport={"width": 1366, "height": 768})
    page.set_default_timeout(1000 * PATIENCE_S)
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on(
        "console", lambda message: page.problems.append(message.text) if message.type == "error" else None
    )
    page.on(
        "request", lambda r: None if r.url.startswith(("file:", "data:")) else page.problems.append(r.url)
    )
    page.goto(address)
    yield page
    assert page.problems == []
    assert page.evaluate("window.hacked") is None
    page.close()


def ids(page):
    return [text.removeprefix("clip-") for text in page.locator("#listing tbody th").all_inner_texts()]


def test_nothing_moves_while_one_scrolls(page):
    """A card that gets its height only when it is seen moves a button from under the mouse."""
    tall = page.evaluate("document.body.offsetHeight")
    page.locator("footer, #listing").last.scroll_into_view_if_needed()
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.evaluate("document.body.offsetHeight") == tall > 3 * 768


def test_sorting_by_click_and_by_key(page):
    assert ids(page) == list("413052")  # as it was written
    head = page.locator("#listing thead th")
    assert head.nth(3).get_attribute("aria-sort") == "descending"
    page.get_by_role("button", name="ours").click()
    assert ids(page) == list("053142")  # best first; without a value still last
    assert head.nth(3).get_attribute("aria-sort") == "ascending"
    page.get_by_role("button", name="clip", exact=True).focus()
    page.keyboard.press("Enter")
    assert ids(page) == list("012345")
    assert page.evaluate("document.activeElement.textContent").startswith("clip")  # not lost by sorting
    page.keyboard.press("Space")
    assert ids(page) == list("543210")
    page.get_by_role("button", name="mono").click()
    assert ids(page) == list("413025")  # mono has no value for 2 and 5


def test_other_figures_systems_and_columns(page):
    page.locator("#figure").select_option(label="side accuracy (%)")
    assert ids(page) == list("413052")
    first = page.locator("#listing tbody tr").first.locator("td.number").all_inner_texts()
    assert first == ["70.0", "67.5"]
    page.locator("#system").select_option(label="mono")
    assert ids(page) == list("413025")
    page.locator("#columns").select_option(label="every figure, this system")
    heads = page.locator("#listing thead th").all_inner_texts()
    assert [h.split(" ")[0] for h in heads[3:]] == ["ILD", "side", "left-right"]
    assert page.locator("#listing tbody tr").first.locator("td.number").all_inner_texts()[0] == "3.25"


def test_finding_and_kinds(page):
    page.locator("#find").fill("CLIP-3")
    assert ids(page) == ["3"] and page.locator("#count").inner_text() == "1 clip"
    page.locator("#find").fill("")
    page.locator("#group").select_option(index=1)
    assert ids(page) == list("10")


def test_a_row_opens_players_and_all_figures(page):
    opener = page.get_by_role("button", name="open clip-1")
    opener.focus()
    page.keyboard.press("Enter")
    opened = page.locator("#listing .opened")
    assert opened.locator("audio").count() == 3
    assert opened.locator("details").evaluate("e => e.textContent").count("2.25") == 1  # of mono
    assert opener.get_attribute("aria-expanded") == "true"
    opener.click()
    assert opened.count() == 0


def test_one_sound_plays_and_the_next_goes_on_there(page):
    """In the card of the worst clip: the file is decoded, the line moves, switching keeps the time."""
    card = page.locator("article").first
    assert card.locator("audio").count() == 3
    seconds = card.evaluate(
        """async (card) => {
          const [first, second] = card.querySelectorAll("audio");
          const event = (audio, name) =>
            new Promise((done) => audio.addEventListener(name, done, {once: true}));
          first.currentTime = 1;
          await first.play();
          const duration = first.duration;
          const at = first.currentTime;
          const stopped = event(first, "pause");
          const begun = event(second, "seeked");
          await Promise.all([second.play(), stopped, begun]);
          return [duration, at, second.currentTime, first.paused];
        }"""
    )
    duration, at, then, stopped = seconds
    assert duration == pytest.approx(6, abs=0.01) and 1 <= at <= then < 6 and stopped
    lines = card.locator(".cursor")
    assert lines.count() == card.locator(".panel").count() == 2 * 3 + 2
    assert card.locator(".playing").inner_text().startswith("ours")


def test_a_click_in_a_picture_goes_there(page):
    card = page.locator("article").first
    panel = card.locator(".panel").nth(6)
    panel.scroll_into_view_if_needed()
    box = panel.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 10)
    until(page, "document.querySelector('article audio').currentTime > 0")
    assert 2.9 <= card.locator("audio").first.evaluate("a => a.currentTime") <= 6


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_both_themes(browser, address, scheme):
    """Contrast of at least 4.5 for text and 3 for lines (WCAG 2.1), as the browser computes the colours."""
    page = browser.new_page(color_scheme=scheme)
    page.goto(address)
    style = "getComputedStyle(document.documentElement)"
    names = ("ground", "ink", "faint", "link", "alarm", "truth", *(f"s{k}" for k in range(6)))
    colours = {n: page.evaluate(f"{style}.getPropertyValue('--{n}')") for n in names}
    ground = luminance(colours.pop("ground"))
    for name, colour in colours.items():
        lighter, darker = sorted((luminance(colour), ground), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) > (3 if name[0] in "st" else 4.5), name
    page.close()


def luminance(colour):
    value = [int(colour.strip()[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in value]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_without_script_the_worst_are_first_with_links(browser, address):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    assert ids(page) == list("413052")
    assert page.locator("#listing tbody tr").first.locator("a").count() == 1 + 3
    assert not page.locator(".controls").is_visible()
    context.close()


def test_rows_beyond_a_hundred_come_when_they_are_wanted(browser, tmp_path):
    results = small_results(tmp_path / "in", systems=("ours",), clips=2)
    one = replace(results.clips[1], sounds={"ours": replace(results.clips[1].sounds["ours"], path="gone")})
    clips = tuple(replace(one, id=f"clip-{k}", reference=None, truth=None) for k in range(230))
    path = write_report(replace(results, clips=clips), tmp_path / "out", ReportConfig(clips=0))
    page = browser.new_page()
    page.goto(path.as_uri())
    rows = page.locator("#listing tbody tr:not(.more)")
    assert rows.count() == 100 and page.locator(".more").inner_text() == "130 more"
    page.locator(".more button").focus()
    page.keyboard.press("Enter")
    page.locator("#listing").evaluate("t => t.parentElement.scrollTo(0, 1e6)")
    until(page, "document.querySelectorAll('#listing tbody tr').length == 230")
    assert ids(page) == [str(k) for k in range(230)] and page.locator(".more").count() == 0
    page.close()
