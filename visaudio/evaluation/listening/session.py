"""What the server knows between requests: who is at which trial, and which random name hides which sound.

Names are drawn anew for each presentation and forgotten with its answer; nothing that goes to a listener says
which system, clip or file it is. Trials begin after the headphones check has been passed, in each session
anew: headphones may have been turned round since.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from bi_audio_dataset import media
from bi_audio_dataset.schema import UserError
from visaudio.evaluation.listening import answers, sounds
from visaudio.evaluation.listening import trials as plans
from visaudio.evaluation.listening.questions import asked
from visaudio.evaluation.listening.trials import KINDS, RATING, Trial

CHECK_TONES = 6
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")


class Refusal(Exception):
    """A request that is not answered. status: of HTTP."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True)
class ListeningTest:
    """What is tested. systems: name -> clip -> sound, the same clips each; videos: clip -> picture, where
    there is one; trials: of each listener; listener: the only one there is, or None; output: the answers."""

    systems: Mapping[str, Mapping[str, Path]]
    videos: Mapping[str, Path]
    output: Path
    seed: int = 0
    trials: int = 40
    kinds: tuple[str, ...] = KINDS
    listener: str | None = None

    @property
    def clips(self) -> list[str]:
        return sorted(next(iter(self.systems.values())))

    @property
    def fingerprint(self) -> str:
        return plans.fingerprint(list(self.systems), self.clips, self.trials, self.seed, self.kinds)

    def plan(self, listener: str) -> list[Trial]:
        return plans.plan(list(self.systems), self.clips, listener, self.trials, self.seed, self.kinds)


@dataclass
class _Pending:
    """A trial that is being listened to."""

    trial: Trial
    matched: sounds.Matched = field(repr=False)
    names: tuple[str, ...]
    questions: tuple[str, ...]
    began: float


class Session:
    """Thread-safe; every public method is one request. Raises Refusal."""

    def __init__(self, test: ListeningTest) -> None:
        self.test = test
        self._lock = threading.Lock()
        self._media: dict[str, tuple[str, bytes, str]] = {}  # name -> whose, bytes, type
        self._pending: dict[str, _Pending] = {}
        self._checks: dict[str, list[str]] = {}
        self._passed: set[str] = set()

    def start(self, listener: object) -> dict[str, Any]:
        """Who it is; how far they are."""
        name = self._listener(listener)
        with self._lock:
            return {"listener": name, "done": len(self._done(name)), "total": self.test.trials,
                    "passed": name in self._passed}  # fmt: skip

    def check(self, listener: object) -> dict[str, Any]:
        """Tones in one ear each, in random order with both ears among them, and one in both to set the
        volume by."""
        name = self._listener(listener)
        with self._lock:
            order = [sounds.SIDES[k % 2] for k in range(CHECK_TONES)]
            secrets.SystemRandom().shuffle(order)
            self._checks[name] = order
            self._forget(name)
            return {"tones": [self._hide(name, (sounds.tone(side), "audio/flac")) for side in order],
                    "volume": self._hide(name, (sounds.tone("both"), "audio/flac"))}  # fmt: skip

    def checked(self, listener: object, said: object) -> dict[str, Any]:
        """said: "left" or "right" for each tone. All must be right; kept as an answer of its own."""
        name = self._listener(listener)
        with self._lock:
            order = self._checks.get(name)
            if order is None:
                raise Refusal(409, "there is no headphones check to answer")
            if not isinstance(said, list) or len(said) != len(order) or not set(said) <= set(sounds.SIDES):
                raise Refusal(400, f"expected {len(order)} times left or right")
            passed = said == order
            self._append(
                {"kind": answers.CHECK, "listener": name, "passed": passed, "sides": order, "said": said}
            )
            del self._checks[name]
            self._forget(name)
            if passed:
                self._passed.add(name)
            return {"passed": passed}

    def next(self, listener: object) -> dict[str, Any]:
        """The trial to listen to; the same one, under new names, until it is answered."""
        name = self._listener(listener)
        with self._lock:
            if name not in self._passed:
                raise Refusal(403, "the headphones check comes first")
            done = self._done(name)
            left = [trial for trial in self.test.plan(name) if trial.number not in done]
            if not left:
                return {"finished": True, "done": len(done), "total": self.test.trials}
            trial = left[0]
            video = self.test.videos.get(trial.clip)
            matched = self._matched(trial.clip, video)
            self._forget(name)
            names = tuple(
                self._hide(name, _rendered(matched.sounds[system], video)) for system in trial.order
            )
            questions = asked(video is not None)
            self._pending[name] = _Pending(
                trial, matched, names, tuple(q.name for q in questions), time.monotonic()
            )
            return {
                "finished": False,
                "trial": trial.number,
                "done": len(done),
                "total": self.test.trials,
                "kind": trial.kind,
                "sounds": names,
                "picture": video is not None,
                "questions": [{"name": q.name, "title": q.title, "text": q.text} for q in questions],
            }

    def answer(self, listener: object, trial: object, given: object, plays: object) -> dict[str, Any]:
        """given: {question: 1..5}, or {question: choice} of a pair; plays: of each sound."""
        name = self._listener(listener)
        with self._lock:
            pending = self._pending.get(name)
            if pending is None or trial != pending.trial.number or isinstance(trial, bool):
                raise Refusal(409, "this trial is not the one that is being listened to; load the page again")
            kind, order = pending.trial.kind, pending.trial.order
            if fault := answers.fault_of_answer(kind, given, pending.questions):
                raise Refusal(400, fault)
            if not _counts(plays, len(order)):
                raise Refusal(400, "every sound must have been played")
            row = {
                "kind": kind,
                "listener": name,
                "seed": self.test.seed,
                "trial": pending.trial.number,
                "clip": pending.trial.clip,
                "systems": sorted(order),
                "order": list(order),
                "ratings" if kind == RATING else "choices": given,
                "plays": plays,
                "seconds": round(time.monotonic() - pending.began, 1),
                "lufs": pending.matched.lufs,
                "gains_db": [pending.matched.gains_db[system] for system in order],
            }
            if pending.trial.number not in self._done(name):  # another server may have had it meanwhile
                self._append(row)
            del self._pending[name]
            self._forget(name)
            return {"stored": True}

    def media(self, name: str) -> tuple[bytes, str] | None:
        """A hidden sound's bytes and type."""
        with self._lock:
            found = self._media.get(name)
        return None if found is None else found[1:]

    # -------------------- within the lock

    def _listener(self, name: object) -> str:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise Refusal(400, "a name has 1 to 40 letters, digits, dots, hyphens or bars, the first no sign")
        if self.test.listener not in (None, name):
            raise Refusal(403, "this test is for another listener")
        return name

    def _done(self, listener: str) -> set[int]:
        """Trials of this plan that the file has answers to."""
        try:
            rows = answers.read(self.test.output)
        except UserError as error:
            raise Refusal(500, str(error)) from error
        return {
            row["trial"]
            for row in rows
            if row["kind"] != answers.CHECK
            and row["listener"] == listener
            and row["plan"] == self.test.fingerprint
        }

    def _append(self, row: dict[str, Any]) -> None:
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        try:
            answers.append(self.test.output, {**row, "plan": self.test.fingerprint, "time": now})
        except OSError as error:
            raise Refusal(500, f"the answer cannot be written ({error.strerror or error})") from error
        except UserError as error:
            raise Refusal(500, f"the answer cannot be written: {error}") from error

    def _matched(self, clip: str, video: Path | None) -> sounds.Matched:
        try:
            duration_s = None if video is None else media.probe(video).duration_s
            return sounds.match({name: files[clip] for name, files in self.test.systems.items()}, duration_s)
        except UserError as error:
            raise Refusal(500, f"the trial cannot be played: {error}") from error

    def _hide(self, listener: str, made: tuple[bytes, str]) -> str:
        name = secrets.token_urlsafe(12)
        self._media[name] = (listener, *made)
        return name

    def _forget(self, listener: str) -> None:
        self._media = {name: kept for name, kept in self._media.items() if kept[0] != listener}


def _rendered(audio: np.ndarray, video: Path | None) -> tuple[bytes, str]:
    try:
        return sounds.rendered(audio, video)
    except (UserError, OSError) as error:  # a picture that has gone, no room for a temporary file
        raise Refusal(500, f"the trial cannot be played: {error}") from error


def _counts(plays: object, count: int) -> bool:
    return (
        isinstance(plays, list)
        and len(plays) == count
        and all(isinstance(n, int) and not isinstance(n, bool) and 1 <= n < 10_000 for n in plays)
    )
