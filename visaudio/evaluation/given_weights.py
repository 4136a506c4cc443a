"""Where a measure's weights come from: what the user gave, else what is published."""

from __future__ import annotations

from pathlib import Path

from bi_audio_dataset.schema import UserError
from visaudio import weight_files
from visaudio.evaluation.measures import Settings, Unavailable


def weights_file(settings: Settings, name: str, default: str, what: str) -> Path:
    """The local file of the weights `name`: of `settings`, or of the source `default` (weight_files.py).

    UserError where the user's own source does not exist; Unavailable where the published one cannot be had.
    """
    if name in settings.weights:
        return weight_files.fetch(settings.weights[name], what)
    try:
        return weight_files.fetch(default, what)
    except UserError as error:
        raise Unavailable(f"{error} (--weights {name}=FILE)") from error
