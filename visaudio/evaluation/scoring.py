"""One clip scored: every system's sound and the reference decoded once, heard by every measure, compared.

The same function runs in worker processes and in the main process. Nothing here knows how many clips there
are; what it returns is small (rows of numbers and names of cache entries).
"""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from importlib import import_module
from pathlib import Path

import numpy as np

from bi_audio_dataset import media
from bi_audio_dataset.schema import UserError
from visaudio.evaluation.cache import Cache
from visaudio.evaluation.measures import Heard, Measure, Scene, Settings
from visaudio.evaluation.pairs import ClipFiles
from visaudio.evaluation.problems import LONG_DIFFERENCE_S
from visaudio.evaluation.reading import SHORTEST_S, Facts, Refused, SoundFile

FACTS_KEY = "sound-3"  # counts up where reading.py refuses more: what was let through is read again


@dataclass(frozen=True)
class SystemScore:
    """One system's sound of a clip. rows: by measure; entries: by measure, the cache's (generated, reference)
    for measures that sum up what was heard."""

    duration_s: float
    rows: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    entries: Mapping[str, tuple[str, str | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """A problem of this clip; see `Problems.add`."""

    kind: str
    system: str = ""
    about: str = ""
    detail: str = ""
    amount: float = 0.0
    of_reference: bool = False


@dataclass(frozen=True)
class ClipScore:
    """systems: without those whose file was refused."""

    id: str
    systems: Mapping[str, SystemScore]
    problems: Sequence[Found] = ()


@dataclass(frozen=True)
class Suite:
    """What a process scores with. targets: measure -> "module:function" of its factory."""

    targets: Mapping[str, str]
    settings: Settings
    cache_folder: Path

    def measures(self) -> list[Measure]:
        """UserError, Unavailable as the factories raise them."""
        made = []
        for target in self.targets.values():
            module, _, function = target.partition(":")
            made.append(getattr(import_module(module), function)(self.settings))
        return made


class Scorer:
    """Holds the measures of this process."""

    def __init__(self, measures: Sequence[Measure], cache: Cache) -> None:
        self.measures, self.cache = measures, cache
        self.looks = any(measure.needs & {"video"} for measure in measures)
        self._reference: dict[str, tuple[Heard, str]] = {}  # of the clip at hand, for all its systems

    def score(self, clip: ClipFiles) -> ClipScore:
        """Raises RuntimeError, naming measure and clip, for an error that is a measure's own fault."""
        self._reference.clear()
        problems: list[Found] = []
        reference, reference_facts = None, None
        if clip.reference.sound is not None:
            reference = SoundFile(clip.reference.sound)
            try:
                reference_facts = self.facts(reference)
            except Refused as refused:
                return ClipScore(clip.id, {}, [Found(refused.kind, detail=refused.detail, of_reference=True)])
            about = _about_one(reference_facts, "", "silent_reference")
            problems += [replace(found, of_reference=True) for found in about]
        truth = _read_truth(clip.reference.truth)
        systems = {}
        for system, path in clip.sounds.items():
            generated = SoundFile(path)
            try:
                facts = self.facts(generated)
                duration_s = min(f.seconds for f in (facts, reference_facts) if f is not None)
                if duration_s < SHORTEST_S:
                    raise Refused("too_short", f"{duration_s:.3f} s")
            except Refused as refused:
                problems.append(Found(refused.kind, system, detail=refused.detail))
                continue
            problems += _about_one(facts, system, "silent")
            if reference_facts is not None:
                problems += _about_two(facts, reference_facts, system)
            video, said = self._video(clip.video(system), system)
            problems += said
            scene = Scene(clip.id, duration_s, clip.reference.caption, video, truth)
            systems[system], said = self._score_system(generated, reference, scene, system)
            problems += said
        return ClipScore(clip.id, systems, problems)

    def facts(self, file: SoundFile) -> Facts:
        """From the cache where this very file was read before. Raises Refused."""
        stored = self.cache.load(FACTS_KEY, file.digest)
        if stored is not None and stored.get("facts", np.zeros(0)).shape == (4,):
            samples, rate, channels, silent = stored["facts"].tolist()
            return Facts(samples, rate, channels, bool(silent))
        facts = file.facts
        self.cache.store(FACTS_KEY, file.digest, {"facts": np.array(astuple(facts), np.int64)})
        return facts

    def _video(self, path: Path | None, system: str) -> tuple[Path | None, list[Found]]:
        """The picture, if a measure wants it and it can be read."""
        if path is None or not self.looks:
            return path, []
        try:
            media.probe(path)
            return path, []
        except UserError as error:
            return None, [Found("no_picture", system, detail=" ".join(str(error).split()))]

    def _score_system(
        self, generated: SoundFile, reference: SoundFile | None, scene: Scene, system: str
    ) -> tuple[SystemScore, list[Found]]:
        rows, entries, problems = {}, {}, []
        have = _what_there_is(scene, reference)
        for measure in self.measures:
            lacking = sorted(measure.needs - have)
            if lacking:
                about = f"{measure.name}: no {', no '.join(lacking)}"
                problems.append(Found("lacks", system, about))
                continue
            compared = replace(scene, duration_s=scene.truth.duration_s) if measure.whole_clip else scene
            try:
                heard, entry = self._hear(measure, generated, compared)
                other, other_entry = self._hear_reference(measure, reference, compared)
                rows[measure.name] = {k: float(v) for k, v in measure.compare(heard, other, compared).items()}
            except UserError as error:
                problems.append(Found("failed", system, measure.name, " ".join(str(error).split())))
                continue
            except Exception as error:
                raise RuntimeError(f"measure {measure.name} failed on clip {scene.id} of {system}") from error
            if measure.keeps_heard:
                entries[measure.name] = (entry, other_entry)
        return SystemScore(scene.duration_s, rows, entries), problems

    def _hear_reference(
        self, measure: Measure, file: SoundFile | None, scene: Scene
    ) -> tuple[Heard | None, str | None]:
        if file is None:
            return None, None
        name = f"{measure.name} {entry_name(file.digest, scene, measure)}"
        if name not in self._reference:
            self._reference[name] = self._hear(measure, file, scene)
        return self._reference[name]

    def _hear(self, measure: Measure, file: SoundFile, scene: Scene) -> tuple[Heard, str]:
        """(arrays, name of their entry)."""
        entry = entry_name(file.digest, scene, measure)
        keep = measure.caches or measure.keeps_heard
        heard = self.cache.load(measure.key, entry) if keep else None
        if heard is None:
            heard = measure.hear(file.cut(scene.duration_s), scene)
            if keep:
                self.cache.store(measure.key, entry, heard)
        return heard, entry


def entry_name(digest: str, scene: Scene, measure: Measure) -> str:
    """What is heard depends on the file, how much of it is heard, and what of the scene is asked for."""
    name = f"{digest}-{scene.duration_s:.6f}"
    asked = measure.needs & {"video", "caption", "truth"}
    if not asked:
        return name
    about = hashlib.blake2b(scene.id.encode(), digest_size=8)
    if "caption" in asked:
        about.update(scene.caption.encode())
    if "video" in asked and scene.video is not None:
        stat = scene.video.stat()
        lens = None if scene.truth is None else scene.truth.hfov_deg
        about.update(f"{scene.video.resolve()} {stat.st_size} {stat.st_mtime_ns} {lens}".encode())
    if "truth" in asked and scene.truth is not None:
        from visaudio.evaluation.truth_files import truth_text

        about.update(truth_text(scene.truth).encode())
    return f"{name}-{about.hexdigest()}"


def _what_there_is(scene: Scene, reference: SoundFile | None) -> frozenset[str]:
    there = {
        "reference": reference is not None,
        "video": scene.video is not None,
        "caption": bool(scene.caption),
        "truth": scene.truth is not None and bool(scene.truth.sources),
    }
    return frozenset(name for name, is_there in there.items() if is_there)


def _about_one(facts: Facts, system: str, silent: str) -> list[Found]:
    found = [Found("mono", system)] if facts.channels == 1 else []
    return found + ([Found(silent, system)] if facts.silent else [])


def _about_two(generated: Facts, reference: Facts, system: str) -> list[Found]:
    found = []
    if generated.rate != reference.rate:
        found.append(Found("rate", system, detail=f"{generated.rate} and {reference.rate} Hz"))
    apart_s = abs(generated.seconds - reference.seconds)
    # half a sample of the coarser rate: lengths that differ by rounding alone are equal
    if apart_s * min(generated.rate, reference.rate) > 0.5:
        kind = "length" if apart_s > LONG_DIFFERENCE_S else "length_slightly"
        found.append(Found(kind, system, amount=apart_s))
    return found


def _read_truth(path: Path | None):
    if path is None:
        return None
    from visaudio.evaluation.truth_files import read_truth

    return read_truth(path)


# -------------------- inside a worker process

_made: list[Scorer | Exception] = []


def start_worker(suite: Suite) -> None:
    """Interruptions are for the main process, which then lets this one finish its clip."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _made[:] = [Scorer(suite.measures(), Cache(suite.cache_folder))]
    except Exception as error:  # raised by the first clip: here it would only break the pool
        _made[:] = [error]


def score_in_worker(clip: ClipFiles) -> ClipScore:
    if isinstance(_made[0], Exception):
        raise _made[0]
    return _made[0].score(clip)
