"""What the review page does, in plain functions; page.py binds them to components."""

from __future__ import annotations

from bi_audio_dataset.review.session import ReviewSession
from bi_audio_dataset.schema import UserError


class Handlers:
    """Each returns the page's values: (clip id, history, video, map, plot, caption, facts, progress,
    message).

    history: ids of the clips shown before, the latest last. A clip id of None: the queue is empty.
    """

    def __init__(self, session: ReviewSession) -> None:
        self.session = session

    def stay(self, clip_id: str | None, history: list[str], message: str) -> tuple:
        return self._show(clip_id, history, message=message)

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
        if following is None and clip_id in self.session.queue():
            return self._show(clip_id, history, message="no other clip waits")
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
        progress = _bar(self.session)
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


def _bar(session: ReviewSession) -> str:
    counts = session.progress()
    words = f"{counts}. {session.notice}" if session.notice else f"{counts}"
    return f'{words}<progress max="{counts.total}" value="{counts.total - counts.open}"></progress>'
