"""The benchmark of BiAudio-Synth as a measure: the figures of synth_benchmark.py for any system's sounds.

Every clip belongs to some of synth_benchmark.GROUPS, and every figure is given for each group on its own:
the first table of docs/results.md is the group `gated`. A sound shorter than its clip is silent for its rest.
"""

from __future__ import annotations

import numpy as np

from visaudio import weight_files
from visaudio.evaluation import classifier as classifiers
from visaudio.evaluation import synth_benchmark as benchmark
from visaudio.evaluation.measures import ClipSet, FigureSpec, Heard, Measure, Scene, Settings, Sound

SILENT = -1  # the class of a silent sound
# figure -> title, unit, which way is better, digits, factor
FIGURES = {
    "side": ("side correct", "%", "higher", 1, 100.0),
    "r": ("ILD r", "", "higher", 3, 1.0),
    "r_moving": ("median r, moving", "", "higher", 3, 1.0),
    "ild_error_db": ("ILD error", "dB", "lower", 2, 1.0),
    "onset_f1": ("onset F1", "", "higher", 3, 1.0),
    "sound_class": ("class right", "%", "higher", 1, 100.0),
    "itd_gcc_us": ("ITD error, GCC-PHAT", "us", "lower", 0, 1.0),
    "itd_phase_us": ("ITD error, 100-1500 Hz", "us", "lower", 0, 1.0),
}
ONE_SOURCE = ("r_moving", "sound_class")  # nothing to say of several sources
TITLES = {
    "gated": "one, in view",
    "camera_only": "still, camera moves",
    "leaves_view": "leaves the view",
    "several": "several",
    "off_screen": "off screen",
}


def _figures() -> tuple[FigureSpec, ...]:
    return tuple(
        FigureSpec(f"truth_{group}_{name}", f"{FIGURES[name][0]} ({TITLES[group]})", *FIGURES[name][1:])
        for group in benchmark.GROUPS
        for name in FIGURES
        if not (group == "several" and name in ONE_SOURCE)
    )


class Truth(Measure):
    """hear: the fields of synth_benchmark.Cues; `sound_class` as its number in the classifier, or SILENT."""

    name = "truth"
    figures = _figures()
    needs = frozenset({"reference", "truth"})

    def __init__(self, settings: Settings) -> None:
        given = settings.weights.get("sound_classifier", str(classifiers.PACKAGED))
        path = weight_files.fetch(given, "a sound classifier")
        self.classifier = classifiers.load(path)
        self._key = f"truth-1-{weight_files.sha256(path)[:12]}"

    @property
    def key(self) -> str:
        return self._key

    def hear(self, sound: Sound, scene: Scene) -> dict[str, np.ndarray]:
        audio = sound.audio[:, : round(scene.duration_s * sound.sample_rate)]
        duration_s = scene.truth.duration_s if scene.truth else scene.duration_s
        heard = benchmark.hear(audio, sound.sample_rate, self.classifier.classify, duration_s)
        number = SILENT if heard.sound_class is None else self.classifier.classes.index(heard.sound_class)
        return {**vars(heard), "sound_class": np.array(number)}

    def compare(self, generated: Heard, reference: Heard | None, scene: Scene) -> dict[str, float]:
        clip = scene.truth
        score = benchmark.score(self._cues(generated), self._cues(reference), clip)
        groups = benchmark.groups_of(clip, camera_of(clip))
        row = {f"truth_sum_{name}": float(v) for name, v in zip(benchmark.SUMS, score.sums, strict=True)}
        row |= {f"truth_in_{group}": float(group in groups) for group in benchmark.GROUPS}
        own = benchmark.pooled(score.sums) | {"r_moving": score.r_moving}
        row["truth_r_moving"] = score.r_moving
        for spec in self.figures:
            group, name = _parts(spec.name)
            row[spec.name] = float(own[name]) if group in groups else float("nan")
        return row

    def summarise(self, clips: ClipSet, index: np.ndarray) -> dict[str, float]:
        taken = np.bincount(index, minlength=len(clips.ids)).astype(np.float64)
        sums = np.stack([clips.rows[f"truth_sum_{name}"] for name in benchmark.SUMS], axis=1)
        # nan, of a clip that was not scored, is in no group
        member = np.stack([clips.rows[f"truth_in_{group}"] for group in benchmark.GROUPS]) > 0
        values = benchmark.pooled((member * taken) @ np.nan_to_num(sums))
        moving = clips.rows["truth_r_moving"][index]
        figures = {}
        for number, group in enumerate(benchmark.GROUPS):
            within = moving[member[number][index]]
            within = within[np.isfinite(within)]
            median = float(np.median(within)) if within.size else float("nan")
            for name in FIGURES:
                found = median if name == "r_moving" else float(values[name][number])
                figures[f"truth_{group}_{name}"] = found
        return {spec.name: figures[spec.name] for spec in self.figures}

    def _cues(self, heard: Heard) -> benchmark.Cues:
        number = int(heard["sound_class"])
        name = None if number == SILENT else self.classifier.classes[number]
        return benchmark.Cues(**{**heard, "sound_class": name})


def camera_of(clip) -> np.ndarray:
    """(3, T) yaw, pitch and roll in degrees; a camera nobody knows of is taken to be still."""
    frames = max((len(source.azimuth_deg) for source in clip.sources), default=0)
    return np.zeros((3, frames)) if clip.camera_deg is None else np.asarray(clip.camera_deg, np.float64)


def _parts(figure: str) -> tuple[str, str]:
    """The group and the name of a figure."""
    group = next(g for g in benchmark.GROUPS if figure.startswith(f"truth_{g}_"))
    return group, figure.removeprefix(f"truth_{group}_")


def make(settings: Settings) -> Truth:
    return Truth(settings)
