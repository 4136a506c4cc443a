"""The benchmark of BiAudio-Synth as a measure: the figures of synth_benchmark.py for any system's sounds.

Over whichever clips are summed up: the evaluation gives them for all clips and for each of
synth_benchmark.GROUPS; `gated` is the first table of docs/results.md. A sound shorter than its clip counts as
silent for the rest of it, against a reference that is not cut.
"""

from __future__ import annotations

import numpy as np

from visaudio import weight_files
from visaudio.evaluation import classifier as classifiers
from visaudio.evaluation import synth_benchmark as benchmark
from visaudio.evaluation.measures import ClipSet, FigureSpec, Heard, Measure, Scene, Settings, Sound

SILENT = -1  # the class of a silent sound


class Truth(Measure):
    """hear: the fields of synth_benchmark.Cues; `sound_class` as its number in the classifier, or SILENT."""

    name = "truth"
    figures = (
        FigureSpec("truth_side", "side correct", "%", "higher", 1, 100),
        FigureSpec("truth_side_silent", "silent on its side", "%", "lower", 1, 100),
        FigureSpec("truth_r", "ILD r", "", "higher", 3),
        FigureSpec("truth_r_moving", "median ILD r, moving", "", "higher", 3),
        FigureSpec("truth_ild_error_db", "ILD error", "dB", "lower", 2),
        FigureSpec("truth_onset_f1", "onset F1 against the truth", "", "higher", 3),
        FigureSpec("truth_sound_class", "class right", "%", "higher", 1, 100),
        FigureSpec("truth_itd_gcc_us", "ITD error, GCC-PHAT", "us", "lower", 0),
        FigureSpec("truth_itd_phase_us", "ITD error, 100-1500 Hz", "us", "lower", 0),
    )
    needs = frozenset({"reference", "truth"})
    whole_clip = True

    def __init__(self, settings: Settings) -> None:
        given = settings.weights.get("sound_classifier", str(classifiers.PACKAGED))
        path = weight_files.fetch(given, "a sound classifier")
        self.classifier = classifiers.load(path)
        self._key = f"truth-3-{weight_files.sha256(path)[:12]}"

    @property
    def key(self) -> str:
        return self._key

    def hear(self, sound: Sound, scene: Scene) -> dict[str, np.ndarray]:
        audio = sound.audio[:, : round(scene.duration_s * sound.sample_rate)]
        heard = benchmark.hear(audio, sound.sample_rate, self.classifier.classify, scene.duration_s)
        number = SILENT if heard.sound_class is None else self.classifier.classes.index(heard.sound_class)
        return {**vars(heard), "sound_class": np.array(number)}

    def compare(self, generated: Heard, reference: Heard | None, scene: Scene) -> dict[str, float]:
        score = benchmark.score(self._cues(generated), self._cues(reference), scene.truth)
        sums = dict(zip(benchmark.SUMS, score.sums.tolist(), strict=True))
        own = benchmark.pooled(score.sums) | {"r_moving": score.r_moving}
        return _named(own) | {f"truth_{name}_sum": value for name, value in sums.items()}

    def summarise(self, clips: ClipSet, index: np.ndarray) -> dict[str, float]:
        sums = [np.nansum(clips.rows[f"truth_{name}_sum"][index]) for name in benchmark.SUMS]
        moving = clips.rows["truth_r_moving"][index]
        moving = moving[np.isfinite(moving)]
        median = np.median(moving) if moving.size else np.nan
        return _named(benchmark.pooled(np.array(sums)) | {"r_moving": median})

    def _cues(self, heard: Heard) -> benchmark.Cues:
        number = int(heard["sound_class"])
        name = None if number == SILENT else self.classifier.classes[number]
        return benchmark.Cues(**{**heard, "sound_class": name})


def _named(figures: dict) -> dict[str, float]:
    return {f"truth_{name}": float(value) for name, value in figures.items()}


def make(settings: Settings) -> Truth:
    return Truth(settings)
