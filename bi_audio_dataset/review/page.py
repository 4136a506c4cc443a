"""The review page: components, what their events call, and its server. Gradio 6 (extra `review`), loaded when
the page is opened.

What the page does is in handlers.py, what runs in the browser in front.py; nothing of it comes from another
machine, and nothing is told to one.

Which clip is up is known twice: `clip_id` on the server, `seen` in the browser. An event counts only where
both agree, so that a key pressed twice, or while the next clip is on its way, never judges a clip unseen.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from bi_audio_dataset.review import front
from bi_audio_dataset.review.handlers import Handlers
from bi_audio_dataset.review.session import ReviewSession
from bi_audio_dataset.schema import UserError

VIDEO_HEIGHT = 340  # decisions stay in sight on a screen of 768 lines, whatever the view's shape
FONTS = ["system-ui", "sans-serif"]  # the machine's; the bold one that Gradio ships lacks letters
CACHE_S = (600, 3600)  # Gradio's copies of what was shown: looked through every, removed after


def build(session: ReviewSession):
    """The page as gradio.Blocks. UserError if Gradio is not installed."""
    gr = _gradio(session)
    handlers = Handlers(session)
    title = f"Review of {session.folder.name}"
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=CACHE_S) as page:
        clip_id, history = gr.State(None), gr.State([])
        with gr.Column(elem_classes="review-hidden"):
            seen = gr.Textbox(elem_id="review-seen")
        progress = gr.HTML(elem_id="review-progress", padding=False)
        with gr.Row():
            with gr.Column():
                video = gr.Video(
                    show_label=False,
                    interactive=False,
                    autoplay=True,
                    height=VIDEO_HEIGHT,
                    buttons=[],
                    elem_id="review-video",
                )
                facts = gr.Markdown(elem_id="review-facts")
                caption = gr.Textbox(label="Caption", lines=2, interactive=True, elem_id="review-caption")
                message = gr.Markdown(elem_id="review-message")
                with gr.Row():
                    accept = _button(gr, "Accept (A)", "a", "primary")
                    reject = _button(gr, "Reject (R)", "r", "stop")
                    rerender = _button(gr, "Another path (P)", "p")
                with gr.Row():
                    back = _button(gr, "Back (B)", "b")
                    skip = _button(gr, "Next (N)", "n")
            with gr.Column():
                gr.HTML(front.MAP_LEGEND, elem_id="review-map-legend", padding=False)
                energy = _picture(gr, "review-map")
                gr.HTML(front.ILD_LEGEND, elem_id="review-ild-legend", padding=False)
                plot = _picture(gr, "review-ild")
                with gr.Row(equal_height=True):
                    longest = max(info.duration_s for info in session.clips.index().values())
                    moment = gr.Slider(
                        0,
                        longest,
                        value=0,
                        step=0.05,
                        label="At this moment (s), or where you pause",
                        scale=3,
                        elem_id="review-moment",
                    )
                    whole = gr.Button("Whole clip", size="sm", min_width=100, elem_id="review-whole")
        gr.Markdown(front.HELP)

        # one at a time, in the order in which they were pressed
        turn = {
            "concurrency_id": "review",
            "concurrency_limit": 1,
            "api_visibility": "private",
            "show_progress_on": video,
        }
        shown: list[Any] = [
            clip_id, seen, history, video, energy, plot, caption, facts, progress, message, moment,
        ]  # fmt: skip
        here: list[Any] = [clip_id, seen, history]
        page.load(_start(handlers), None, shown, **turn)
        for button, decision in ((accept, "accept"), (reject, "reject"), (rerender, "rerender")):
            button.click(_decide(handlers, decision), [*here, caption], shown, **turn)
        skip.click(_move(handlers, handlers.skip), here, shown, **turn)
        back.click(_move(handlers, handlers.back), here, shown, **turn)
        pictures = [energy, plot, moment]
        turn |= {"show_progress": "hidden", "trigger_mode": "always_last"}
        look = _look(handlers, gr.skip)
        moment.release(look, [clip_id, seen, moment], pictures, **turn)
        video.pause(look, [clip_id, seen, moment], pictures, js=front.PAUSED_SCRIPT, **turn)
        whole.click(_look_whole(look), [clip_id, seen], pictures, **turn)
        page.load(None, None, None, js=front.keys_script())
    return page


def serve(session: ReviewSession, host: str = "127.0.0.1", port: int | None = None, browser: bool = False):
    """Serve the page beside this thread: gradio.Blocks with `local_url` and `close()`."""
    gr = _gradio(session)
    page = build(session)
    try:
        page.launch(
            server_name=host,
            server_port=port,
            inbrowser=browser,
            allowed_paths=[str(session.media_folder)],
            prevent_thread_lock=True,
            quiet=True,
            show_error=True,
            # what Gradio would take from the environment, or offer by default
            share=False,
            ssr_mode=False,
            mcp_server=False,
            enable_monitoring=False,
            run_history=False,
            footer_links=[],
            theme=gr.themes.Default(font=FONTS, font_mono=["ui-monospace", "monospace"]),
            css=front.STYLE,
        )
    except OSError as error:
        raise UserError(f"the page cannot be served on {host} port {port or 'any'}: {error}") from None
    return page


def launch(session: ReviewSession, host: str, port: int | None, browser: bool) -> None:
    """Serve the page until the user stops it."""
    page = serve(session, host, port, browser)
    print(f"review page: {page.local_url} (stop with Ctrl-C)", flush=True)
    page.block_thread()


def _button(gr, words: str, key: str, variant: str = "secondary"):
    return gr.Button(words, variant=variant, size="md", min_width=120, elem_id=front.KEYS[key])


def _picture(gr, elem_id: str):
    # the fullscreen button lies in a corner of the map that has no writing
    return gr.Image(
        show_label=False,
        interactive=False,
        format="png",
        buttons=["fullscreen"] if elem_id == "review-map" else [],
        elem_id=elem_id,
    )


# Gradio looks at a function's signature, which functools.partial would hide.


def _start(handlers: Handlers) -> Callable:
    def run():
        return _page_values(handlers.start())

    return run


def _decide(handlers: Handlers, decision: str) -> Callable:
    def run(clip_id, seen, history, caption):
        if clip_id != (seen or None):
            return _page_values(handlers.stay(clip_id, history, front.TOO_EARLY))
        return _page_values(handlers.decide(decision, clip_id, history, caption))

    return run


def _move(handlers: Handlers, move: Callable) -> Callable:
    def run(clip_id, seen, history):
        if clip_id != (seen or None):
            return _page_values(handlers.stay(clip_id, history, front.TOO_EARLY))
        return _page_values(move(clip_id, history))

    return run


def _look(handlers: Handlers, unchanged: Callable) -> Callable:
    """(map, plot, slider) at a moment, of the whole clip at 0; nothing changes where another clip came up
    meanwhile.
    """

    def run(clip_id, seen, moment_s):
        if clip_id is None or clip_id != seen:
            return [unchanged()] * 3
        return [*handlers.moment(clip_id, moment_s or None), moment_s]

    return run


def _look_whole(look: Callable) -> Callable:
    def run(clip_id, seen):
        return look(clip_id, seen, 0.0)

    return run


def _page_values(values: tuple) -> tuple:
    """What a handler returns, with the clip's id for the browser, and 0 for the slider of a new map."""
    clip_id, *others = values
    return (clip_id, clip_id or "", *others, 0.0)


def _gradio(session: ReviewSession):
    """The module, told to keep its copies of what is shown in the session's folder, which goes with the
    session, and to call nobody. It reads both from the environment, the former at each event."""
    os.environ["GRADIO_TEMP_DIR"] = str(session.media_folder / "gradio")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ImportError:
        raise UserError("the review page needs Gradio: pip install 'visaudio[review]'") from None
    return gradio
