"""Measures that are right by inspection, for tests of what is around measures."""

import numpy as np

from visaudio.evaluation.measures import FigureSpec, Measure


class Level(Measure):
    """Mean square of each ear, at 22.05 kHz; per clip the error in dB against the reference."""

    name = "level"
    figures = (
        FigureSpec("level_error_db", "level error", "dB"),
        FigureSpec("ild_db", "ILD", "dB", better=""),
    )

    @property
    def key(self):
        return "level-1"

    def hear(self, sound, scene):
        return {"power": (sound.at(22050).astype(float) ** 2).mean(axis=1) + 1e-9}

    def compare(self, generated, reference, scene):
        ild = 10 * np.log10(generated["power"][0] / generated["power"][1])
        if reference is None:
            return {"ild_db": float(ild)}
        error = abs(10 * np.log10(generated["power"].sum() / reference["power"].sum()))
        return {"level_error_db": float(error), "ild_db": float(ild)}


def make_level(settings):
    return Level()
