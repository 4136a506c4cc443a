"""The clip record: what one row of a published dataset holds, and how it is typed and checked.

Two frames of reference, two classes:

- `SourceTruth` is a sounding object in the WORLD, in radians: what a source knows before a camera exists.
- `SourceView` is the same object in the CAMERA's frame, in degrees: what a row stores.

Angles follow sphere.py: azimuth positive to the left, elevation positive up. Truth arrays run at
TRUTH_RATE_HZ; entry i belongs to time i / TRUTH_RATE_HZ from the start of the clip.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

SCHEMA_VERSION = 2
#: Older version -> columns that its rows lack. What does without them takes it as it is (`check_readable`).
OLDER = {1: ("direction",)}
TRUTH_RATE_HZ = 25
AUDIO_RATE_HZ = 44100
SPLITS = ("train", "validation", "test")
#: Configuration of a published repository -> where its Parquet files lie below the dataset's folder.
CONFIGS = {
    "default": "data",
    "features": "features",
    "synth": "synth/data",
    "benchmark": "benchmark/data",
}
#: Configurations that are whole datasets of their own, below the folder of the one they are published with.
INNER = ("synth", "benchmark")
#: source_name of rows made by sources/synthetic.
SYNTH_NAME = "BiAudio-Synth"
#: The BiAudio-Synth benchmark: which scenes every system is scored on. They never change under one version.
BENCHMARK_VERSION = 1
BENCHMARK_SEED = 7000
BENCHMARK_CLIPS = 320
#: hrir_set of rows whose two ears are one and the same sound: their sound has no direction.
MONO_EARS = "recorded: mono"
ENVELOPE_FLOOR_DB = -80.0


def is_benchmark_id(clip_id: str) -> bool:
    """Whether a clip is one of the BiAudio-Synth benchmark's: no training may see it."""
    return clip_id.startswith(f"synth-{BENCHMARK_SEED}-")


class UserError(ValueError):
    """A mistake of the user's (file, flag, folder). One line of text: a CLI prints it and exits with 2."""


def reason_of(error: BaseException, most: int = 200) -> str:
    """What an exception says, in one line of at most `most` characters; its type's name if that is none."""
    text = " ".join(str(error).split())
    return (text if len(text) <= most else f"{text[: most - 4].rstrip()} ...") or type(error).__name__


def check_version(version: Any, what: str) -> None:
    """Raise UserError if rows or folders of this schema_version cannot be read as they are."""
    if version == SCHEMA_VERSION and not isinstance(version, bool):
        return
    older = isinstance(version, int) and version < SCHEMA_VERSION
    todo = (
        "python -m bi_audio_dataset upgrade FOLDER rewrites its dataset"
        if older
        else "install a newer visaudio, or use the program that wrote it"
    )
    raise UserError(f"{what} has schema_version {version!r}, this program reads {SCHEMA_VERSION}: {todo}")


def check_readable(version: Any, what: str) -> None:
    """As `check_version`, for what does without the columns that OLDER versions lack."""
    if isinstance(version, bool) or version not in OLDER:
        check_version(version, what)


@dataclass(frozen=True)
class SourceTruth:
    """One sounding object in the world frame. All arrays are (T,) at TRUTH_RATE_HZ.

    size_rad is the angular width seen from the listener; envelope_db is the dry envelope relative to its
    loudest frame, floored at ENVELOPE_FLOOR_DB; caption is a noun phrase ("a small brass bell");
    on_screen_kind says what is drawn ("none" for an object that never is, hence is never visible).
    """

    class_name: str
    member: str
    caption: str
    on_screen_kind: str
    azimuth_rad: np.ndarray
    elevation_rad: np.ndarray
    distance_m: np.ndarray
    size_rad: np.ndarray
    onset_s: tuple[float, ...]
    envelope_db: np.ndarray

    def __post_init__(self) -> None:
        names = ("azimuth_rad", "elevation_rad", "distance_m", "size_rad", "envelope_db")
        lengths = {name: np.shape(getattr(self, name)) for name in names}
        if len(set(lengths.values())) != 1 or len(lengths["azimuth_rad"]) != 1:
            raise ValueError(f"truth arrays of '{self.class_name}' must be (T,) of one length, got {lengths}")


@dataclass(frozen=True)
class CameraTrack:
    """Camera orientation at rate_hz, in degrees: yaw positive left, pitch up, roll right ear down."""

    rate_hz: float
    yaw_deg: tuple[float, ...]
    pitch_deg: tuple[float, ...]
    roll_deg: tuple[float, ...]


@dataclass(frozen=True)
class SourceView:
    """One sounding object in the camera frame, per truth frame; visible = drawn, and its centre in view."""

    class_name: str
    member: str
    caption: str
    azimuth_deg: tuple[float, ...]
    elevation_deg: tuple[float, ...]
    lateral_deg: tuple[float, ...]
    distance_m: tuple[float, ...]
    size_deg: tuple[float, ...]
    visible: tuple[bool, ...]
    onset_s: tuple[float, ...]
    envelope_db: tuple[float, ...]


@dataclass(frozen=True)
class TruthTrack:
    """Ground truth of a clip; `sources` is empty where nobody knows (real recordings)."""

    rate_hz: float = float(TRUTH_RATE_HZ)
    sources: tuple[SourceView, ...] = ()


@dataclass(frozen=True)
class Filters:
    """Measured figures that selection looks at.

    lr_difference = sum((L-R)^2) / (2 sum(L^2+R^2)), 0 = mono, 0.5 = uncorrelated, 1 = opposite phase;
    direction_confidence is ambisonics.max_energy_direction's; level_gain_db the one gain given to both ears;
    rms_dbfs and true_peak_dbfs the level of the stored audio.
    """

    lr_difference: float
    direction_confidence: float
    level_gain_db: float
    rms_dbfs: float
    true_peak_dbfs: float


@dataclass(frozen=True)
class Direction:
    """Where most of a window's energy comes from, in degrees in the RECORDING's frame, as CameraTrack
    is; confidence 0 (diffuse) to 1 (one plane wave)."""

    azimuth_deg: float
    elevation_deg: float
    confidence: float


@dataclass(frozen=True)
class ClipRecord:
    """One row: a view with its binaural sound. video is a whole MP4 file, audio a whole FLAC file; direction
    is None where there is no field to measure it in (films that come with their two ears)."""

    id: str
    recording_id: str
    split: str
    video: bytes = field(repr=False)
    audio: bytes = field(repr=False)
    caption: str
    duration_s: float
    width: int
    height: int
    fps: float
    hfov_deg: float
    camera: CameraTrack
    truth: TruthTrack
    hrir_set: str
    hrir_symmetric: bool
    room: str
    source_name: str
    provenance: str
    licence: str
    filters: Filters
    direction: Direction | None = None
    schema_version: int = SCHEMA_VERSION

    def to_row(self) -> dict[str, Any]:
        """A plain dict in the column order of `features()`; media as {"bytes", "path"}."""
        row = asdict(self)
        row["video"] = {"bytes": self.video, "path": f"{self.id}.mp4"}
        row["audio"] = {"bytes": self.audio, "path": f"{self.id}.flac"}
        row["truth"]["sources"] = list(row["truth"]["sources"])
        return {name: row[name] for name in COLUMNS}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> ClipRecord:
        """The inverse of `to_row`; also takes rows read by `datasets` with decode=False.

        Raises UserError if the row is of another schema version or lacks a column.
        """
        check_version(row.get("schema_version"), f"row '{row.get('id')}'")
        missing = [name for name in COLUMNS if name not in row]
        if missing:
            raise UserError(f"row '{row.get('id')}' lacks the columns {missing}")
        plain = {name: row[name] for name in COLUMNS}
        plain["video"] = row["video"]["bytes"]
        plain["audio"] = row["audio"]["bytes"]
        plain["camera"] = CameraTrack(**_tuples(row["camera"]))
        views = tuple(SourceView(**_tuples(view)) for view in row["truth"]["sources"])
        plain["truth"] = TruthTrack(rate_hz=row["truth"]["rate_hz"], sources=views)
        plain["filters"] = Filters(**row["filters"])
        plain["direction"] = Direction(**row["direction"]) if row["direction"] else None
        return cls(**plain)


COLUMNS = ("schema_version", *(f.name for f in fields(ClipRecord) if f.name != "schema_version"))


def _tuples(mapping: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, (list, np.ndarray)) else v for k, v in mapping.items()}


def features(decode: bool = False):
    """The typed columns as `datasets.Features`.

    decode=False (what shards are written with) makes `load_dataset(...)[i]["audio"]` a dict of bytes, without
    torchcodec; `dataset.cast_column("audio", Audio())` turns decoding on where torchcodec is installed.
    """
    from datasets import Audio, Features, Value, Video

    # older releases of `datasets` do not know the number of channels, but read files that state it
    stereo = {"num_channels": 2} if "num_channels" in {f.name for f in fields(Audio)} else {}
    f32, text = Value("float32"), Value("string")
    view = {
        "class_name": text, "member": text, "caption": text,
        "azimuth_deg": [f32], "elevation_deg": [f32], "lateral_deg": [f32], "distance_m": [f32],
        "size_deg": [f32], "visible": [Value("bool")], "onset_s": [f32], "envelope_db": [f32],
    }  # fmt: skip
    return Features(
        {
            "schema_version": Value("int32"),
            "id": text,
            "recording_id": text,
            "split": text,
            "video": Video(decode=decode),
            "audio": Audio(sampling_rate=AUDIO_RATE_HZ, decode=decode, **stereo),
            "caption": text,
            "duration_s": f32,
            "width": Value("int32"),
            "height": Value("int32"),
            "fps": f32,
            "hfov_deg": f32,
            "camera": {"rate_hz": f32, "yaw_deg": [f32], "pitch_deg": [f32], "roll_deg": [f32]},
            "truth": {"rate_hz": f32, "sources": [view]},
            "hrir_set": text,
            "hrir_symmetric": Value("bool"),
            "room": text,
            "source_name": text,
            "provenance": text,
            "licence": text,
            "filters": {f.name: f32 for f in fields(Filters)},
            "direction": {f.name: f32 for f in fields(Direction)},
        }
    )


def validate_row(row: dict[str, Any]) -> list[str]:
    """Problems of one row, each a short phrase; empty if it is sound. Looks at values, not into the media.

    Checks version, split, positive sizes, direction, lengths of camera and truth arrays, finite and in-range
    angles, lateral against azimuth and elevation, and that nothing is `visible` outside the view.
    """
    try:
        record = ClipRecord.from_row(row)
    except (UserError, TypeError, KeyError) as error:
        return [str(error)]
    problems = []
    if record.split not in SPLITS:
        problems.append(f"split is '{record.split}', expected one of {', '.join(SPLITS)}")
    for name in ("id", "recording_id", "caption", "licence", "source_name", "hrir_set"):
        if not getattr(record, name):
            problems.append(f"{name} is empty")
    for name in ("duration_s", "width", "height", "fps"):
        if not (_is_finite(getattr(record, name)) and getattr(record, name) > 0):
            problems.append(f"{name} is {getattr(record, name)}, expected a positive number")
    if not (_is_finite(record.hfov_deg) and 10 <= record.hfov_deg <= 170):
        problems.append(f"hfov_deg is {record.hfov_deg}, expected 10 to 170")
    for name, value in asdict(record.filters).items():
        if not _is_finite(value):
            problems.append(f"filters.{name} is {value}")
    if record.direction is not None:
        problems += _direction_problems(record.direction)
    if any(getattr(record, name) is None for name in ("duration_s", "width", "height", "hfov_deg")):
        return problems  # tracks and views cannot be judged without them
    problems += _track_problems(
        "camera", record.camera.rate_hz, record.duration_s, _camera_arrays(record.camera)
    )
    for index, view in enumerate(record.truth.sources):
        problems += _view_problems(f"truth.sources[{index}]", view, record)
    return problems


def _direction_problems(direction: Direction) -> list[str]:
    return [
        f"direction.{name} is {value}, expected {low} to {high}"
        for name, low, high in (("azimuth_deg", -180, 180), ("elevation_deg", -90, 90), ("confidence", 0, 1))
        if not (_is_finite(value := getattr(direction, name)) and low - 1e-3 <= value <= high + 1e-3)
    ]


def _is_finite(value: float | None) -> bool:
    # a column of a Parquet file may hold null
    return value is not None and math.isfinite(value)


def _camera_arrays(camera: CameraTrack) -> dict[str, tuple[tuple[float, ...], float, float]]:
    # name: (values, lowest, highest); yaw may be unwrapped over several turns
    return {
        "yaw_deg": (camera.yaw_deg, -3600, 3600),
        "pitch_deg": (camera.pitch_deg, -90, 90),
        "roll_deg": (camera.roll_deg, -180, 180),
    }


def _track_problems(where: str, rate_hz: float, duration_s: float, arrays: dict) -> list[str]:
    problems = []
    expected = round(duration_s * rate_hz)
    for name, (values, low, high) in arrays.items():
        array = np.asarray(values, dtype=np.float64)
        if len(array) != expected:
            problems.append(f"{where}.{name} has {len(array)} entries, expected {expected}")
        if array.size and not np.isfinite(array).all():
            problems.append(f"{where}.{name} is not finite")
        elif array.size and (array.min() < low - 1e-3 or array.max() > high + 1e-3):
            problems.append(
                f"{where}.{name} leaves [{low:g}, {high:g}]: {array.min():.4g} to {array.max():.4g}"
            )
    return problems


def _view_problems(where: str, view: SourceView, record: ClipRecord) -> list[str]:
    arrays = {
        "azimuth_deg": (view.azimuth_deg, -180, 180),
        "elevation_deg": (view.elevation_deg, -90, 90),
        "lateral_deg": (view.lateral_deg, -90, 90),
        "distance_m": (view.distance_m, 0, 1e5),
        "size_deg": (view.size_deg, 0, 360),
        "visible": (view.visible, 0, 1),
        "envelope_db": (view.envelope_db, ENVELOPE_FLOOR_DB, 0.5),
    }
    problems = _track_problems(where, record.truth.rate_hz, record.duration_s, arrays)
    late = [t for t in view.onset_s if not -1e-3 <= t <= record.duration_s]
    if late:
        problems.append(f"{where}.onset_s holds {late[0]:.3f}, outside 0 to {record.duration_s:g} s")
    if problems:
        return problems
    azimuth, elevation = np.radians(view.azimuth_deg), np.radians(view.elevation_deg)
    lateral = np.degrees(np.arcsin(np.clip(np.sin(azimuth) * np.cos(elevation), -1, 1)))
    # asin is steep near +-90 degrees: compare the sines
    if np.abs(np.sin(np.radians(view.lateral_deg)) - np.sin(np.radians(lateral))).max(initial=0) > 2e-3:
        problems.append(f"{where}.lateral_deg does not follow from azimuth and elevation")
    visible = np.asarray(view.visible, dtype=bool)
    outside = ~in_view(azimuth, elevation, record.hfov_deg, record.width / record.height, margin=1.02)
    if (visible & outside).any():
        problems.append(
            f"{where}.visible is true in {int((visible & outside).sum())} frames outside the view"
        )
    return problems


def in_view(azimuth_rad, elevation_rad, hfov_deg: float, aspect: float, margin: float = 1.0) -> np.ndarray:
    """Whether a direction in the camera frame falls inside a perspective view. (T,), (T,) -> (T,) bool.

    aspect = width / height. The view plane lies at x = 1, spans +-tan(hfov/2) in y and that over aspect in z.
    """
    x = np.cos(azimuth_rad) * np.cos(elevation_rad)
    y = np.sin(azimuth_rad) * np.cos(elevation_rad)
    z = np.sin(elevation_rad)
    half = math.tan(math.radians(hfov_deg) / 2) * margin
    return (x > 1e-9) & (np.abs(y) <= half * x) & (np.abs(z) <= half / aspect * x)
