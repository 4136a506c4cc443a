"""The settings of a build: how clips are cut out of recordings."""

from __future__ import annotations

from dataclasses import dataclass, field

from bi_audio_dataset import limits
from bi_audio_dataset.filters import SelectionConfig
from bi_audio_dataset.schema import AUDIO_RATE_HZ
from bi_audio_dataset.trajectory import TrajectoryConfig

#: What `build` takes for BuildConfig.aim_from_hz (docs/results.md, real recordings).
AIM_FROM_HZ = 100.0


@dataclass(frozen=True)
class BuildConfig:
    """How clips are cut out of recordings. Angles in degrees."""

    seed: int = 0
    clip_s: float = 8.0
    width: int = 256
    height: int = 144
    fps: float = 25.0
    crf: int = 20
    preset: str = "veryfast"
    # first direction: that of most energy, offset by the trajectory; now and then any, for off-screen sound
    random_yaw_probability: float = 0.08
    trajectory: TrajectoryConfig = field(
        default_factory=lambda: TrajectoryConfig(first_yaw_offset_deg=25.0, first_pitch_offset_deg=8.0)
    )
    # the sound from here on says where most energy comes from; 0: all of it, as in BiAudio-Synth. In rooms
    # the lowest sound comes from where standing waves lie: AIM_FROM_HZ for recordings
    aim_from_hz: float = 0.0
    views_per_recording: int = 1  # of each window, each with a camera path of its own
    hfov_fixed_deg: float = 90.0
    hfov_fixed_probability: float = 0.5
    hfov_range_deg: tuple[float, float] = (50.0, 110.0)
    sofa: str | None = None  # None: the spherical-head model
    symmetrise_hrirs: bool = True
    # level: RMS is brought here, within the gain and the true peak
    rms_dbfs: float = -20.0
    true_peak_dbfs: float = -1.0
    max_gain_db: float = 40.0
    level_measure: str = "rms"  # or "lufs": rms_dbfs is then a loudness
    denoiser: str | None = None  # of the field, before all else (render.load_denoiser)
    # caption: an object is visible if it is on view in this part of the frames in which it sounds
    visible_fraction: float = 0.3
    active_db: float = -40.0
    # which clips stay; the default drops none
    selection: SelectionConfig = field(default_factory=SelectionConfig.measured)
    rows_per_shard: int = 100

    def __post_init__(self) -> None:
        limits.check(self)

    @classmethod
    def of_recordings(cls) -> BuildConfig:
        """The defaults for real recordings: the filters decide, views are 90 degrees wide, and the lowest
        sound does not aim the camera. Those of the class are BiAudio-Synth's: all is kept, lenses are mixed.
        """
        return cls(hfov_fixed_probability=1.0, aim_from_hz=AIM_FROM_HZ, selection=SelectionConfig())

    @property
    def num_frames(self) -> int:
        return round(self.clip_s * self.fps)

    @property
    def num_samples(self) -> int:
        return round(self.clip_s * AUDIO_RATE_HZ)
