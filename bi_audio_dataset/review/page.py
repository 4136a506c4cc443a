"""The review page: components and what their events call. Gradio 5 or 6 (extra `review`), loaded when it is
opened.

`Handlers` is what the page does, in plain functions; `build` only puts components around it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from bi_audio_dataset.review.session import ReviewSession
from bi_audio_dataset.schema import UserError

# key -> element of the page that it clicks
KEYS = {
    "a": "review-accept",
    "r": "review-reject",
    "p": "review-rerender",
    "n": "review-next",
    "b": "review-back",
}
HELP = (
    "Keys: **A** accept, **R** reject, **P** another path, **N** next, **B** back, **E** edit the caption "
    "(**Esc** leaves it), **space** play or pause. Blue: where the view begins, yellow: where it ends, "
    "white: "
    "its path, green: known sources."
)
# A listener of the page's own, as Gradio has no keys; it leaves every key to a field that is being edited.
KEYS_SCRIPT = """() => {
  if (window.reviewKeys) { return; }
  window.reviewKeys = %s;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) { return; }
    const field = event.target.closest("textarea, input:not([type=range])");
    if (field) { if (event.key === "Escape") { field.blur(); } return; }
    // a button that was clicked keeps the focus, and the space bar would click it again
    if (document.activeElement) { document.activeElement.blur(); }
    if (event.key === "e") {
      const box = document.querySelector("#review-caption textarea");
      if (box) { box.focus(); event.preventDefault(); }
    } else if (event.key === " ") {
      const video = document.querySelector("#review-video video");
      if (video) { video.paused ? video.play() : video.pause(); event.preventDefault(); }
    } else if (window.reviewKeys[event.key.toLowerCase()]) {
      const found = document.getElementById(window.reviewKeys[event.key.toLowerCase()]);
      const button = found && (found.tagName === "BUTTON" ? found : found.querySelector("button"));
      if (button) { button.click(); event.preventDefault(); }
    }
  });
}"""


class Handlers:
    """Each returns the page's values: (clip id, history, video, map, plot, caption, facts, progress,
    message).

    history: ids of the clips shown before, the latest last. A clip id of None: the queue is empty.
    """

    def __init__(self, session: ReviewSession) -> None:
        self.session = session

    def start(self) -> tuple:
        return self._show(self.session.after(None), [])

    def decide(self, decision: str, clip_id: str | None, history: list[str], caption: str) -> tuple:
        """Write the decision and go on; where it cannot be taken, stay, keep the text and say why."""
        if clip_id is None:
            return self._show(self.session.after(None), history)
        following = self.session.after(clip_id)
        try:
            self.session.decide(clip_id, decision, caption)
        except UserError as error:
            return self._show(clip_id, history, caption, str(error))
        # what follows was looked up before the decision took this clip out of the queue
        following = following if following != clip_id else None
        return self._show(following, [*history, clip_id], message=f"{clip_id}: {decision}")

    def skip(self, clip_id: str | None, history: list[str]) -> tuple:
        following = self.session.after(clip_id)
        return self._show(following, [*history, clip_id] if clip_id else history)

    def back(self, clip_id: str | None, history: list[str]) -> tuple:
        if not history:
            return self._show(clip_id, history, message="this was the first clip")
        return self._show(history[-1], history[:-1])

    def moment(self, clip_id: str | None, moment_s: float | None) -> tuple:
        """(map, plot) at a moment, None for the whole clip."""
        if clip_id is None:
            return None, None
        view = self.session.view(clip_id, moment_s)
        return view.map_image, view.ild_image

    def _show(
        self, clip_id: str | None, history: list[str], caption: str | None = None, message: str = ""
    ) -> tuple:
        progress = str(self.session.progress())
        if clip_id is None:
            return (
                None,
                history,
                None,
                None,
                None,
                "",
                "**Nothing waits for a decision.**",
                progress,
                message,
            )
        try:
            view = self.session.view(clip_id)
        except UserError as error:
            facts = f"**{clip_id}** cannot be shown: {error}"
            return (clip_id, history, None, None, None, caption or "", facts, progress, message)
        text = view.caption if caption is None else caption
        values = (str(view.video), view.map_image, view.ild_image, text, view.facts, progress, message)
        return (clip_id, history, *values)


def build(session: ReviewSession):
    """The page as gradio.Blocks. UserError if Gradio is not installed."""
    gr = _gradio()
    handlers = Handlers(session)
    with gr.Blocks(title=f"Review of {session.folder.name}") as page:
        clip_id, history = gr.State(None), gr.State([])
        progress = gr.Markdown(elem_id="review-progress")
        with gr.Row():
            with gr.Column():
                video = gr.Video(
                    label="Clip with its binaural sound (use headphones)",
                    interactive=False,
                    autoplay=True,
                    elem_id="review-video",
                )
                facts = gr.Markdown(elem_id="review-facts")
            with gr.Column():
                energy = gr.Image(
                    label="Where the sound comes from, and the camera's view",
                    interactive=False,
                    elem_id="review-map",
                )
                plot = gr.Image(label="Level difference over time", interactive=False, elem_id="review-ild")
                with gr.Row():
                    longest = max(info.duration_s for info in session.clips.index().values())
                    moment = gr.Slider(0, longest, value=0, step=0.05, label="Map at this moment (s)")
                    whole = gr.Button("Whole clip", size="sm")
        caption = gr.Textbox(label="Caption", lines=2, interactive=True, elem_id="review-caption")
        message = gr.Markdown(elem_id="review-message")
        with gr.Row():
            accept = gr.Button("Accept (A)", variant="primary", elem_id=KEYS["a"])
            reject = gr.Button("Reject (R)", variant="stop", elem_id=KEYS["r"])
            rerender = gr.Button("Another path (P)", elem_id=KEYS["p"])
            skip = gr.Button("Next (N)", elem_id=KEYS["n"])
            back = gr.Button("Back (B)", elem_id=KEYS["b"])
        gr.Markdown(HELP)

        shown: list[Any] = [clip_id, history, video, energy, plot, caption, facts, progress, message]
        judged = [
            button.click(_bound(handlers.decide, decision), [clip_id, history, caption], shown)
            for button, decision in ((accept, "accept"), (reject, "reject"), (rerender, "rerender"))
        ]
        moved = [
            b.click(move, [clip_id, history], shown)
            for b, move in ((skip, handlers.skip), (back, handlers.back))
        ]
        for event in (*judged, *moved, whole.click(_whole(handlers), [clip_id], [energy, plot])):
            event.then(_zero, None, moment)  # the map of a new clip is that of its whole length
        moment.release(handlers.moment, [clip_id, moment], [energy, plot])
        page.load(handlers.start, None, shown)
        page.load(None, None, None, js=keys_script())
    return page


def launch(session: ReviewSession, host: str, port: int | None, browser: bool, block: bool = True) -> str:
    """Serve the page; its address. With block, returns when the user stops it."""
    page = build(session)
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            inbrowser=browser,
            allowed_paths=[str(Path(session.media_folder))],
            prevent_thread_lock=True,
            quiet=True,
        )
    except OSError as error:
        raise UserError(f"the page cannot be served on {host} port {port or 'any'}: {error}") from None
    if block:
        print(f"review page: {address} (stop with Ctrl-C)", flush=True)
        page.block_thread()
    return address


def keys_script() -> str:
    import json

    return KEYS_SCRIPT % json.dumps(KEYS)


def _bound(decide, decision: str):
    # Gradio looks at a function's signature, which functools.partial would hide
    def run(clip_id, history, caption):
        return decide(decision, clip_id, history, caption)

    return run


def _whole(handlers: Handlers):
    def run(clip_id):
        return handlers.moment(clip_id, None)

    return run


def _zero() -> float:
    return 0.0


def _gradio():
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # a local page calls nobody
    try:
        import gradio
    except ImportError:
        raise UserError("the review page needs Gradio: pip install 'visaudio[review]'") from None
    return gradio
