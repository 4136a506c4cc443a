"""How the mono-to-binaural head is trained (head_training.py); apart from it, so that torch is not needed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainConfig:
    """minutes: of the clock, after which it ends; steps: instead, if given. crop_s: of sound; each crop holds
    a frame within 30 dB of its clip's loudest. clips: at most, spread evenly. validation_clips: likewise.

    ild_weight: of the level terms (see `loss`) beside the spectral one. silence_db: power below the clip's
    loudest frame that is added to each frame's own where errors are taken relative to it.
    """

    minutes: float = 5.0
    steps: int | None = None
    batch_size: int = 16
    crop_s: float = 3.0
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    clips: int = 4000
    validation_clips: int = 64
    ild_weight: float = 0.05
    silence_db: float = -30.0
    seed: int = 0
