"""Learning rate as a pure function of the step.

Nothing is stored and nothing is stepped: a resumed run asks for ``learning_rate(step)`` and gets the same
number as a run that never stopped. (A scheduler given to Accelerate's ``prepare()`` steps once per
process, which is why there is none.)
"""

import math
from dataclasses import dataclass

from bi_audio_dataset.schema import UserError

DECAYS = ("constant", "cosine", "linear", "step")


@dataclass(frozen=True)
class ScheduleConfig:
    """Warm-up to ``peak`` over ``warmup_steps``, constant until ``decay_start`` (fraction of the run),
    then decay.

    decay: 'cosine' and 'linear' fall to ``final_ratio * peak`` at the last step; 'step' multiplies by
    ``step_factor`` at each fraction of ``milestones`` (MMAudio: 0.1 at 0.8 and 0.9); 'constant' stays.
    """

    peak: float = 1e-4
    warmup_steps: int = 1000
    decay: str = "step"
    decay_start: float = 0.5
    final_ratio: float = 0.02
    milestones: tuple[float, ...] = (0.8, 0.9)
    step_factor: float = 0.1

    def __post_init__(self) -> None:
        if self.decay not in DECAYS:
            raise UserError(f"schedule.decay is {self.decay!r}; expected one of {', '.join(DECAYS)}")
        if not 0 < self.peak < math.inf:
            raise UserError(f"schedule.peak is {self.peak}, expected a positive number")
        if self.warmup_steps < 0 or not 0 <= self.decay_start <= 1:
            raise UserError(
                f"schedule: warmup_steps {self.warmup_steps} must be >= 0 "
                f"and decay_start {self.decay_start} in 0-1"
            )


def learning_rate(step: int, total_steps: int, config: ScheduleConfig) -> float:
    """Learning rate of optimizer step ``step`` (0-based) of a run of ``total_steps``."""
    warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    return config.peak * warmup * _decay(step / max(1, total_steps), config)


def _decay(progress: float, config: ScheduleConfig) -> float:
    if config.decay == "constant":
        return 1.0
    if config.decay == "step":
        return config.step_factor ** sum(progress >= milestone for milestone in config.milestones)
    span = max(1e-12, 1.0 - config.decay_start)
    fallen = min(1.0, max(0.0, (progress - config.decay_start) / span))
    if config.decay == "cosine":
        fallen = 0.5 * (1.0 - math.cos(math.pi * fallen))
    return 1.0 - (1.0 - config.final_ratio) * fallen
