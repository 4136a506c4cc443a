"""The page: its handlers, its wiring on a stand-in for Gradio, and the page itself where Gradio is. What a
browser makes of it is in test_browser.py."""

import sys
import urllib.request

import pytest
from fake_clips import dataset, row

from bi_audio_dataset.review import front, page
from bi_audio_dataset.review.handlers import Handlers
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
    return Handlers(session)


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
    handlers.decide("accept", "a", [], BELL)
    shown = handlers.skip("b", ["a"])  # the only one left still waits
    assert shown[:2] == ("b", ["a"]) and shown[-1] == "no other clip waits"


def test_a_clip_that_cannot_be_shown_can_be_left_and_rejected(tmp_path):
    broken = row("a", 0.1)
    broken["video"]["bytes"] = b"no video"
    session = ReviewSession(dataset(tmp_path, [broken, row("b", caption=BELL)]), "eva")
    handlers = Handlers(session)
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
    script = front.keys_script()
    assert len(set(front.KEYS.values())) == len(front.KEYS) == 5
    assert all(f'"{key}": "{element}"' in script for key, element in front.KEYS.items())
    assert all(f"**{key.upper()}**" in front.HELP for key in front.KEYS)


class StandIn:
    """Components that hold a value and run what is bound to their events, as Gradio does it in a browser."""

    def __init__(self, *values, value=None, elem_id=None, **_):
        self.value, self.elem_id, self.bound = (values[0] if values else value), elem_id, []
        Page.components.append(self)

    def click(self, run, inputs, outputs, js=None, **_):
        self.bound.append((run, inputs, outputs))

    release = pause = click

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


class Page(StandIn):
    """Stands for gradio and for gradio.Blocks."""

    components: list = []
    State = Markdown = HTML = Video = Image = Textbox = Button = Slider = Row = Column = StandIn
    unchanged = object()

    def __init__(self, title="", **_):
        self.loads = []

    @classmethod
    def Blocks(cls, **options):
        assert options["analytics_enabled"] is False
        return cls(**options)

    @classmethod
    def skip(cls):
        return cls.unchanged

    def load(self, run, inputs, outputs, js=None, **_):
        self.loads.append((run, inputs, outputs, js))

    def element(self, elem_id):
        (found,) = [component for component in self.components if component.elem_id == elem_id]
        return found

    def press(self, elem_id):
        (event,) = self.element(elem_id).bound
        self.fire(*event)

    def fire(self, run, inputs, outputs):
        answers = run(*[component.value for component in inputs or []])
        for component, answer in zip(outputs, answers, strict=True):
            if answer is not self.unchanged:
                component.value = answer


@pytest.fixture
def built(session, monkeypatch):
    """The page on the stand-in, as it is when it has loaded."""
    Page.components.clear()
    monkeypatch.setattr(page, "_gradio", lambda _: Page)
    built = page.build(session)
    (start, inputs, outputs, _), (nothing, _, _, script) = built.loads
    assert nothing is None and script == front.keys_script()
    built.fire(start, inputs, outputs)
    return built


def test_buttons_keys_and_fields_are_wired_to_what_they_say(session, built):
    facts, caption = built.element("review-facts"), built.element("review-caption")
    assert "**b**" in facts.value and caption.value == BELL
    assert built.element("review-video").value.endswith(".mp4")
    caption.value = DRUM
    built.press(front.KEYS["a"])
    assert "**c**" in facts.value and caption.value == BELL
    built.press(front.KEYS["n"])
    assert "**a**" in facts.value
    built.press(front.KEYS["b"])
    built.press(front.KEYS["r"])
    built.press(front.KEYS["p"])
    assert "Nothing waits" in facts.value and built.element("review-seen").value == ""
    assert built.element("review-progress").value.startswith("3 of 3 decided")
    assert [(d.clip_id, d.decision, d.caption) for d in session.rows()] == [
        ("b", "accept", DRUM),
        ("c", "reject", ""),
        ("a", "rerender", ""),
    ]


def test_slider_and_pause_show_a_moment_and_the_next_clip_its_whole(built):
    slider, energy = built.element("review-moment"), built.element("review-map")
    whole = energy.value
    slider.value = 0.5
    for event in (slider, built.element("review-video")):
        energy.value = whole
        built.fire(*event.bound[0])
        assert (energy.value != whole).any() and slider.value == 0.5
    built.press("review-whole")
    assert (energy.value == whole).all() and slider.value == 0
    slider.value = 0.5
    built.press(front.KEYS["n"])
    assert slider.value == 0


@pytest.mark.parametrize("key", "arpnb")
def test_what_is_pressed_before_the_page_has_changed_is_not_taken(session, built, key):
    """The browser still shows b while the server is at c already."""
    built.press(front.KEYS["n"])
    built.element("review-seen").value = "b"
    energy = built.element("review-map").value
    built.element("review-moment").value = 0.5
    built.press("review-moment")
    assert built.element("review-map").value is energy  # the map of c is not asked for with b's moment
    built.press(front.KEYS[key])
    assert session.rows() == [] and "**c**" in built.element("review-facts").value
    assert built.element("review-message").value == front.TOO_EARLY
    built.press(front.KEYS["r"])  # both agree again
    assert [(d.clip_id, d.decision) for d in session.rows()] == [("c", "reject")]


def test_without_gradio_the_page_says_what_to_install(session, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # build sets both for the process
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "")
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match=r"pip install 'visaudio\[review\]'"):
        page.build(session)


@pytest.mark.slow
def test_gradio_serves_the_page_to_this_machine_alone(session, monkeypatch):
    pytest.importorskip("gradio")
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED"):
        monkeypatch.setenv(name, "True")  # as a user may have it; put back after the test
    monkeypatch.setenv("GRADIO_SHARE", "True")
    served = page.serve(session)
    elements = {block.elem_id for block in served.blocks.values() if getattr(block, "elem_id", None)}
    assert set(front.KEYS.values()) | {"review-caption", "review-video", "review-map"} <= elements
    assert not served.analytics_enabled and not served.share and served.server_name == "127.0.0.1"
    assert served.GRADIO_CACHE.startswith(str(session.media_folder))
    with urllib.request.urlopen(served.local_url, timeout=60) as answer:
        assert answer.status == 200
        assert "googleapis" not in answer.read().decode()
    taken = served.server_port
    with pytest.raises(UserError, match=f"cannot be served on 127.0.0.1 port {taken}"):
        page.serve(session, port=taken)
    served.close()
