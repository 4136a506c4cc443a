"""visaudio: end-to-end binaural audio from silent video (the ViSAudio method, arXiv 2512.03036).

    from visaudio import ViSAudio
    ViSAudio.from_pretrained("org/name")("clip.mp4").save("clip.flac")

`ViSAudio` is pipeline.ViSAudioPipeline by a shorter name; torch is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visaudio.pipeline import ViSAudioPipeline as ViSAudio

__version__ = "0.1.0"
__all__ = ["ViSAudio", "__version__"]


def __getattr__(name: str) -> Any:
    if name != "ViSAudio":
        raise AttributeError(f"module 'visaudio' has no attribute {name!r}")
    from importlib import import_module

    return import_module("visaudio.pipeline").ViSAudioPipeline


def __dir__() -> list[str]:
    return sorted([*globals(), "ViSAudio"])
