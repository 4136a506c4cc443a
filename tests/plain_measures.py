"""Measures that are right by inspection, for tests of what is around measures.

`use(monkeypatch, "level", ...)` registers these alone. Worker processes import this file by its name.
"""

import os
import time

import numpy as np

from bi_audio_dataset.schema import UserError
from visaudio.evaluation import measures
from visaudio.evaluation.measures import FigureSpec, Measure, Unavailable


def use(monkeypatch, *names: str) -> None:
    monkeypatch.setattr(measures, "REGISTRY", {name: f"plain_measures:make_{name}" for name in names})


def loudness_db(power: np.ndarray) -> float:
    return float(10 * np.log10(power.sum() + 1e-9))


class Level(Measure):
    """Mean square of each ear; per clip the error in dB against the reference."""

    name = "level"
    figures = (
        FigureSpec("level_error_db", "level error", "dB", digits=2),
        FigureSpec("ild_db", "ILD", "dB", better=""),
    )
    heard = 0  # sounds heard in this process, by all instances

    @property
    def key(self):
        return "level-1"

    def hear(self, sound, scene):
        Level.heard += 1
        return {"power": (sound.audio.astype(float) ** 2).mean(axis=1) + 1e-12}

    def compare(self, generated, reference, scene):
        ild = float(10 * np.log10(generated["power"][0] / generated["power"][1]))
        if reference is None:
            return {"ild_db": ild}
        error = abs(loudness_db(generated["power"]) - loudness_db(reference["power"]))
        return {"level_error_db": error, "ild_db": ild}


class Spread(Measure):
    """A figure of sets: how far apart the mean powers are; pooled from what was heard."""

    name = "spread"
    figures = (FigureSpec("spread_db", "spread", "dB", per_clip=False),)
    needs = frozenset({"reference"})
    keeps_heard = True
    parallel = False
    resamples = 50

    @property
    def key(self):
        return "spread-1"

    def hear(self, sound, scene):
        return {"power": (sound.audio.astype(float) ** 2).mean(axis=1) + 1e-12}

    def compare(self, generated, reference, scene):
        return {}

    def summarise(self, clips, index):
        ours, theirs = (
            np.mean([side[i]["power"] for i in index], axis=0) for side in (clips.generated, clips.reference)
        )
        return {"spread_db": abs(loudness_db(ours) - loudness_db(theirs))}


class Looks(Measure):
    """Whether a clip has a picture: the size of the file."""

    name = "looks"
    figures = (FigureSpec("picture_bytes", "picture", "bytes", better=""),)
    needs = frozenset({"video"})

    @property
    def key(self):
        return "looks-1"

    def hear(self, sound, scene):
        return {"size": np.array(scene.video.stat().st_size)}

    def compare(self, generated, reference, scene):
        return {"picture_bytes": float(generated["size"])}


class Picky(Level):
    """Cannot be taken on quiet sounds, and does not keep what it hears."""

    name = "picky"
    figures = (FigureSpec("loud_db", "loudness", "dB", better=""),)
    needs = frozenset()
    caches = False

    @property
    def key(self):
        return "picky-1"

    def compare(self, generated, reference, scene):
        if loudness_db(generated["power"]) < -40:
            raise UserError("too quiet to say")
        return {"loud_db": loudness_db(generated["power"])}


def make_level(settings):
    return Level()


def make_spread(settings):
    return Spread()


def make_looks(settings):
    return Looks()


def make_picky(settings):
    if settings.weights.get("picky_weights") == "none":
        raise Unavailable("no weights for picky")
    return Picky()


def make_absent(settings):
    raise Unavailable("pip install absent")


class Dies(Picky):
    """Takes its process with it, as the system does where memory runs out."""

    name = "dies"
    figures = (FigureSpec("dead", "dead"),)

    @property
    def key(self):
        return "dies-1"

    def hear(self, sound, scene):
        os._exit(9)


def make_dies(settings):
    return Dies()


class Slow(Level):
    """Takes a tenth of a second for each sound."""

    name = "slow"

    @property
    def key(self):
        return "slow-1"

    def hear(self, sound, scene):
        time.sleep(0.1)
        return super().hear(sound, scene)


def make_slow(settings):
    return Slow()


class Here(Level):
    name = "here"


def make_here(settings):
    if os.environ["PLAIN_MEASURES_PROCESS"] != str(os.getpid()):
        raise Unavailable("only in the first process")
    return Here()
