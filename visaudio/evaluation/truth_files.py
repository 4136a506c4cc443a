"""What a BiAudio row says of its clip, as a JSON file beside its sound: measures and the page read it."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from bi_audio_dataset.schema import UserError, reason_of
from visaudio.data.dataset import Clip, SourceTrack

MEDIA = ("frames", "audio")


def truth_text(clip: Clip) -> str:
    """JSON; nan is null."""
    stored = {f.name: getattr(clip, f.name) for f in fields(Clip) if f.name not in MEDIA}
    stored["sources"] = [
        {f.name: _plain(getattr(s, f.name)) for f in fields(SourceTrack)} for s in clip.sources
    ]
    return json.dumps({name: _plain(value) for name, value in stored.items()}, allow_nan=False)


def read_truth(path: str | Path) -> Clip:
    """The clip, without media. UserError for a file that `truth_text` did not write."""
    try:
        stored = json.loads(Path(path).read_bytes())
        stored["sources"] = tuple(SourceTrack(**_arrays(source)) for source in stored["sources"])
        for name in ("hfov_deg", "duration_s", "truth_rate_hz"):
            stored[name] = math.nan if stored[name] is None else float(stored[name])
        return Clip(**stored)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = reason_of(error, 120)
        raise UserError(f"{path}: cannot be read as a clip's truth ({reason}): evaluate again") from error


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _arrays(source: dict[str, Any]) -> dict[str, Any]:
    return {
        name: np.asarray(value, bool if name == "visible" else np.float32)
        if isinstance(value, list)
        else value
        for name, value in source.items()
    }
