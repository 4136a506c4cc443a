"""The page: its handlers, its wiring on a stand-in for Gradio, the page itself where Gradio is, and in a
browser where playwright and a chromium are."""

import shutil

import pytest
from fake_clips import dataset, row

from bi_audio_dataset.review import decisions, page
from bi_audio_dataset.review.session import ReviewSession
from bi_audio_dataset.schema import UserError

BELL = "Visible sound: a bell, Invisible sound: none"
DRUM = "Visible sound: a drum, Invisible sound: none"


@pytest.fixture
def session(tmp_path):
    rows = [row(k, v, caption=BELL) for k, v in {"a": 0.9, "b": 0.1, "c": 0.5}.items()]
    session = ReviewSession(dataset(tmp_path / "set", rows), "eva")
    yield session
    session.close()


@pytest.fixture
def handlers(session):
    return page.Handlers(session)


def test_the_most_doubtful_clip_comes_up_first(handlers):
    clip_id, history, video, energy, plot, caption, facts, progress, message = handlers.start()
    assert (clip_id, history, caption, message) == ("b", [], BELL, "")
    assert video.endswith(".mp4") and energy.shape == (512, 1024, 3) and plot.shape == (220, 1024, 3)
    assert "**b**" in facts and progress.startswith("0 of 3 decided")


def test_a_decision_is_written_and_the_next_clip_comes(handlers, session):
    shown = handlers.decide("accept", "b", [], DRUM)
    assert shown[:2] == ("c", ["b"]) and shown[-2].startswith("1 of 3") and shown[-1] == "b: accept"
    shown = handlers.decide("reject", "c", ["b"], BELL)
    assert shown[:2] == ("a", ["b", "c"])
    shown = handlers.decide("rerender", "a", ["b", "c"], BELL)
    assert shown[0] is None and "Nothing waits" in shown[6] and shown[2:5] == (None, None, None)
    assert [(d.clip_id, d.decision, d.caption) for d in session.rows()] == [
        ("b", "accept", DRUM),
        ("c", "reject", ""),
        ("a", "rerender", ""),
    ]
    assert handlers.decide("accept", None, [], "")[0] is None  # keys on the empty page do nothing
    assert len(session.rows()) == 3


def test_a_refused_caption_stays_on_the_page_with_the_reason(handlers, session):
    shown = handlers.decide("accept", "b", ["x"], "a bell rings")
    assert shown[:2] == ("b", ["x"]) and shown[5] == "a bell rings"
    assert "cannot be taken: it is not of the form" in shown[-1]
    assert session.rows() == []


def test_next_and_back(handlers):
    shown = handlers.skip("b", [])
    assert shown[:2] == ("c", ["b"])
    shown = handlers.decide("reject", *shown[:2], "")
    assert shown[:2] == ("a", ["b", "c"])
    shown = handlers.back(*shown[:2])  # to look at what was decided, and to decide anew
    assert shown[:2] == ("c", ["b"]) and "Decided by eva: reject" in shown[6]
    shown = handlers.decide("accept", "c", ["b"], BELL)
    assert shown[0] == "b" and shown[-2].startswith("1 of 3 decided: 1 accepted, 0 rejected")
    assert handlers.back("b", [])[-1] == "this was the first clip"


def test_a_clip_that_cannot_be_shown_can_be_left_and_rejected(tmp_path):
    broken = row("a", 0.1)
    broken["video"]["bytes"] = b"no video"
    session = ReviewSession(dataset(tmp_path, [broken, row("b", caption=BELL)]), "eva")
    handlers = page.Handlers(session)
    shown = handlers.start()
    assert shown[0] == "a" and "cannot be shown" in shown[6] and shown[2] is None
    assert handlers.skip("a", [])[0] == "b"
    assert handlers.decide("reject", "a", [], "")[0] == "b"
    session.close()


def test_moments(handlers):
    whole, _ = handlers.moment("a", None)
    late, plot = handlers.moment("a", 0.7)
    assert (whole != late).any() and plot.shape == (220, 1024, 3)
    assert handlers.moment(None, 0.5) == (None, None)


def test_keys_click_elements_that_the_page_has():
    script = page.keys_script()
    assert len(set(page.KEYS.values())) == len(page.KEYS) == 5
    assert all(f'"{key}": "{element}"' in script for key, element in page.KEYS.items())
    assert all(f"**{key.upper()}**" in page.HELP for key in page.KEYS)


class StandIn:
    """Components that hold a value and run what is bound to their events, as Gradio does it in a browser."""

    def __init__(self, *values, value=None, elem_id=None, **_):
        self.value, self.elem_id, self.bound = (values[0] if values else value), elem_id, []
        Page.components.append(self)

    def click(self, run, inputs, outputs):
        self.bound.append((run, inputs, outputs))
        return self

    release = then = click  # what follows a click is bound to the same button


class Page:
    """Stands for gradio and for gradio.Blocks."""

    components: list = []
    State = Markdown = Video = Image = Textbox = Button = Slider = StandIn

    def __init__(self, title=""):
        self.loads = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    Blocks = Row = Column = classmethod(lambda cls, title="": cls(title))

    def load(self, run, inputs, outputs, js=None):
        self.loads.append((run, inputs, outputs, js))

    def element(self, elem_id):
        (found,) = [component for component in self.components if component.elem_id == elem_id]
        return found

    def press(self, elem_id):
        for run, inputs, outputs in self.element(elem_id).bound:
            self.fire(run, inputs, outputs)

    @staticmethod
    def fire(run, inputs, outputs):
        answers = run(*[component.value for component in inputs or []])
        if not isinstance(outputs, list):
            outputs, answers = [outputs], [answers]
        for component, answer in zip(outputs, answers, strict=True):
            component.value = answer


def test_buttons_keys_and_fields_are_wired_to_what_they_say(session, monkeypatch):
    Page.components.clear()
    monkeypatch.setattr(page, "_gradio", lambda: Page)
    built = page.build(session)
    (start, inputs, outputs, _), (nothing, _, _, script) = built.loads
    assert nothing is None and script == page.keys_script()
    built.fire(start, inputs, outputs)
    facts, caption = built.element("review-facts"), built.element("review-caption")
    assert "**b**" in facts.value and caption.value == BELL
    assert built.element("review-video").value.endswith(".mp4")
    caption.value = DRUM
    built.press(page.KEYS["a"])
    assert "**c**" in facts.value and caption.value == BELL
    built.press(page.KEYS["n"])
    assert "**a**" in facts.value
    built.press(page.KEYS["b"])
    built.press(page.KEYS["r"])
    whole = built.element("review-map").value
    (slider,) = [c for c in built.components if c.bound and c.elem_id is None and c.value == 0.0]
    slider.value = 0.5
    built.fire(*slider.bound[0])
    assert (built.element("review-map").value != whole).any()
    built.press(page.KEYS["p"])
    assert slider.value == 0.0 and "Nothing waits" in facts.value
    assert built.element("review-progress").value.startswith("3 of 3 decided")
    assert [(d.clip_id, d.decision, d.caption) for d in session.rows()] == [
        ("b", "accept", DRUM),
        ("c", "reject", ""),
        ("a", "rerender", ""),
    ]


def test_without_gradio_the_page_says_what_to_install(session, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match=r"pip install 'visaudio\[review\]'"):
        page.build(session)


@pytest.mark.slow
def test_gradio_serves_the_page(session):
    pytest.importorskip("gradio")
    import urllib.request

    blocks = page.build(session)
    elements = {block.elem_id for block in blocks.blocks.values() if getattr(block, "elem_id", None)}
    assert set(page.KEYS.values()) <= elements
    address = page.launch(session, "127.0.0.1", None, browser=False, block=False)
    with urllib.request.urlopen(address, timeout=10) as answer:
        assert answer.status == 200


def chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.slow
def test_a_reviewer_works_through_the_queue_with_the_keyboard(session, tmp_path):
    pytest.importorskip("gradio")
    sync_api = pytest.importorskip("playwright.sync_api")
    if chromium() is None:
        pytest.skip("no chromium is installed")
    address = page.launch(session, "127.0.0.1", None, browser=False, block=False)
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1400, "height": 1000})
        tab.goto(address)
        facts, box = tab.locator("#review-facts"), tab.locator("#review-caption textarea")
        expect = sync_api.expect
        expect(facts).to_contain_text("recording b")
        expect(tab.locator("#review-map img")).to_be_visible()
        expect(tab.locator("#review-ild img")).to_be_visible()
        playing = "document.querySelector('#review-video video')?.duration > 0.5"
        tab.wait_for_function(playing)  # the browser has decoded picture and sound
        tab.screenshot(path=tmp_path / "review.png", full_page=True)

        tab.keyboard.press("e")
        box.fill("a bell rings")  # letters typed into the caption are no commands
        tab.keyboard.type("arp")
        tab.keyboard.press("Escape")
        tab.keyboard.press("a")
        expect(tab.locator("#review-message")).to_contain_text("cannot be taken")
        box.fill(DRUM)
        tab.keyboard.press("Escape")
        tab.keyboard.press("a")
        expect(facts).to_contain_text("recording c")
        tab.keyboard.press("n")
        expect(facts).to_contain_text("recording a")
        tab.keyboard.press("b")
        expect(facts).to_contain_text("recording c")
        tab.keyboard.press("r")
        expect(facts).to_contain_text("recording a")
        tab.keyboard.press("p")
        expect(facts).to_contain_text("Nothing waits")
        expect(tab.locator("#review-progress")).to_contain_text("3 of 3 decided")
        browser.close()
    assert (tmp_path / "review.png").stat().st_size > 10_000
    verdicts = decisions.resolve(decisions.read(session.file))
    assert {clip_id: verdict.decision for clip_id, verdict in verdicts.items()} == {
        "a": "rerender",
        "b": "accept",
        "c": "reject",
    }
    assert verdicts["b"].caption == DRUM
