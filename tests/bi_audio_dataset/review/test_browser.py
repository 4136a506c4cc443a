"""The review page in a real browser: the system's chromium, driven by playwright (extra `review-test`)."""

import io
import shutil

import cv2
import numpy as np
import pytest
import soundfile
from fake_source import FakeSource, tiny_config

from bi_audio_dataset.build import build
from bi_audio_dataset.finalize import finalize
from bi_audio_dataset.review import decisions, front, main, page
from bi_audio_dataset.review.session import ReviewSession
from bi_audio_dataset.shards import read_rows

pytest.importorskip("gradio", reason="no gradio: pip install -e '.[review-test]'")
sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install -e '.[review-test]'")

PATIENCE_MS = 180_000  # of a machine that does other things beside
DURATION_S = 2.0
DRUM = "Visible sound: a drum, Invisible sound: none"
LEVELS = """async () => {
  const file = await (await fetch(document.querySelector("#review-video video").src)).arrayBuffer();
  const sound = await new OfflineAudioContext(2, 44100, 44100).decodeAudioData(file);
  const power = (channel) => channel.reduce((sum, x) => sum + x * x, 0) / channel.length;
  return Array.from({length: sound.numberOfChannels}, (_, i) => power(sound.getChannelData(i)));
}"""
PAUSE_AT = """async (seconds) => {
  const video = document.querySelector("#review-video video");
  const there = new Promise((resolve) => video.addEventListener("seeked", resolve, {once: true}));
  video.currentTime = seconds;
  await there;
  await video.play();
  video.pause();
}"""
PRESS_AT_ONCE = """(keys) => keys.forEach(
  (key) => document.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true})))"""


def chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def folder(tmp_path):
    """Four clips that wait."""
    make(tmp_path / "set")
    return tmp_path / "set"


def make(folder):
    source = FakeSource(azimuths_deg=(30.0, -60.0, 100.0, -150.0), duration_s=DURATION_S)
    build(source, folder, tiny_config(clip_s=DURATION_S), workers=0, progress=False, finalize=False)


@pytest.fixture
def session(folder):
    session = ReviewSession(folder, "eva")
    yield session
    session.close()


class Tab:
    """A tab at the page; what it asked of other machines, and what went wrong in it."""

    def __init__(self, browser, address):
        self.foreign, self.errors = [], []
        self.page = browser.new_page(viewport={"width": 1366, "height": 768})
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.route(lambda url: not url.startswith((address, "data:", "blob:")), self._refuse)
        self.page.goto(address)

    def _refuse(self, route):
        self.foreign.append(route.request.url)
        route.abort()

    def says(self, element, words):
        sync_api.expect(self.page.locator(f"#{element}")).to_contain_text(words)

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)

    def picture(self, element):
        """(H, W, 3) uint8 RGB as the browser gets it."""
        source = self.page.locator(f"#{element} img").get_attribute("src")
        coded = np.frombuffer(self.page.request.get(source).body(), np.uint8)
        return cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1]

    def shows(self, view):
        """Wait until map and plot are those of a view."""
        for element, image in (("review-map", view.map_image), ("review-ild", view.ild_image)):
            for _ in range(PATIENCE_MS // 500):
                if np.array_equal(self.picture(element), image):
                    break
                self.page.wait_for_timeout(500)
            else:
                raise AssertionError(f"#{element} is not that of {view.clip_id}")


@pytest.fixture
def tab(session, monkeypatch):
    if chromium() is None:
        pytest.skip("no chromium is installed (Debian: apt install chromium)")
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED"):
        monkeypatch.setenv(name, "")  # the page sets them for the process: put back after the test
    sync_api.expect.set_options(timeout=PATIENCE_MS)
    served = page.serve(session)
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium(), args=["--no-sandbox"], timeout=PATIENCE_MS)
        tab = Tab(browser, served.local_url)
        yield tab
        browser.close()
    served.close()
    assert tab.foreign == [] and tab.errors == []


@pytest.mark.slow
def test_a_reviewer_judges_a_build_in_a_browser(folder, session, tab, tmp_path):
    infos = session.clips.index()
    first, second, third, last = sorted(infos, key=lambda clip_id: (infos[clip_id].confidence, clip_id))

    # the most doubtful clip, its player with the binaural sound, its map and its plot
    tab.says("review-facts", f"{first} · recording")
    tab.says("review-progress", "0 of 4 decided")
    tab.page.wait_for_function(
        "(() => { const video = document.querySelector('#review-video video');"
        " return video && video.videoWidth === 64 && video.webkitAudioDecodedByteCount > 0; })()"
    )
    view = session.view(first)
    tab.shows(view)
    heard = 10 * np.log10(tab.page.evaluate(LEVELS))
    ears, _ = soundfile.read(io.BytesIO(session.clips.row(first)["audio"]["bytes"]))
    assert heard == pytest.approx(10 * np.log10((ears**2).mean(axis=0)), abs=1.0)
    assert abs(heard[0] - heard[1]) > 1

    # where the player is paused, and back to the whole clip
    tab.page.evaluate(PAUSE_AT, 0.4)  # whether it is still playing or has ended
    sync_api.expect(tab.page.locator("#review-moment input").first).not_to_have_value("0")
    moment_s = float(tab.page.locator("#review-moment input").first.input_value())
    assert 0.35 <= moment_s < DURATION_S
    tab.shows(session.view(first, moment_s))
    tab.page.locator("#review-whole").click()
    tab.shows(view)

    # letters typed into the caption are no commands; a caption that is none is refused
    box = tab.page.locator("#review-caption textarea")
    tab.press("e")
    box.fill("a bell rings")
    tab.press("a", "r", "p", "Escape", "a")
    tab.says("review-message", "cannot be taken")
    sync_api.expect(box).to_have_value("a bell ringsarp")
    assert session.rows() == []
    box.fill(DRUM)
    tab.press("Escape", "a")
    tab.says("review-facts", second)
    tab.says("review-progress", "1 of 4 decided")

    # two keys while the page changes: the second is not taken for a clip that nobody saw
    tab.page.evaluate(PRESS_AT_ONCE, ["r", "a"])
    tab.says("review-message", front.TOO_EARLY)
    tab.says("review-facts", third)
    assert [(d.clip_id, d.decision) for d in session.rows()] == [(first, "accept"), (second, "reject")]

    # next and back, another path, and the end of the queue
    tab.press("n")
    tab.says("review-facts", last)
    tab.press("b")
    tab.says("review-facts", third)
    before = session.view(third).map_image
    tab.press("p")
    tab.says("review-facts", last)
    tab.press("n")
    tab.says("review-message", "no other clip waits")
    tab.page.locator(f"#{front.KEYS['a']}").click()
    tab.says("review-facts", "Nothing waits")
    tab.says("review-progress", "4 of 4 decided: 2 accepted, 1 rejected, 1 to be rendered again")
    sync_api.expect(tab.page.locator("#review-map img")).to_have_count(0)

    # the build makes the other path, a second reviewer's file comes in
    make(folder)
    jo = tmp_path / "jo.jsonl"
    decisions.append(jo, decisions.Decision(decisions.now(), "jo", last, "reject"))
    assert main([str(folder), "--merge", str(jo)]) == 0
    tab.page.reload()
    tab.says("review-facts", last)
    tab.says("review-facts", "they differ")
    tab.press("a")
    tab.says("review-facts", third)
    tab.says("review-facts", "Rendered again")
    again = session.view(third)
    tab.shows(again)
    assert (again.map_image != before).any()
    tab.press("a")
    tab.says("review-progress", "4 of 4 decided: 2 accepted, 2 rejected, 0 to be rendered again")
    tab.says("review-progress", "reviewers differ on 1")

    # finalize: the disputed one stays out, the caption is the reviewer's
    finalize(folder)
    rows = {row["id"]: row for path in (folder / "data").glob("*.parquet") for row in read_rows(path)}
    assert set(rows) == {first, third} and rows[first]["caption"] == DRUM
    tab.page.reload()
    tab.says("review-progress", "This dataset is finished")
