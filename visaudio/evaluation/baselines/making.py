"""One clip's sound of each baseline, inside a worker process.

Legend: S samples. Row: of the dataset, with its media as bytes.
"""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bi_audio_dataset.schema import UserError
from visaudio.data.dataset import read_clip
from visaudio.evaluation.baselines import NAMES, sources
from visaudio.stored import writing

if TYPE_CHECKING:
    from visaudio.evaluation.baselines.head import Seen, SpatialiserHead
    from visaudio.hub import Components


@dataclass(frozen=True)
class Work:
    """What every worker knows. sounds: the mono sounds' files by clip. partners: of the clips to shuffle, the
    clip whose conditions each gets. kept: folder of conditions made before."""

    rows: Any = field(repr=False)
    output: Path
    model: str
    kept: Path
    seed: int
    sounds: Mapping[str, Path] = field(default_factory=dict, repr=False)
    partners: Mapping[str, str] = field(default_factory=dict, repr=False)
    spatialiser: Path | None = None
    sofa: str | None = None
    hfov_deg: float = 90.0
    device: str = "cpu"


def sound_path(output: Path, system: str, name: str) -> Path:
    return output / system / f"{name}.flac"


class Maker:
    """Makes and stores sounds; loads the model and the head when first asked for."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.place = {name: index for index, name in enumerate(work.rows.ids)}

    @cached_property
    def components(self) -> Components:
        from visaudio.hub import load_pretrained

        return load_pretrained(self.work.model, device=self.work.device)

    @cached_property
    def head(self) -> SpatialiserHead:
        from visaudio.evaluation.baselines import head

        return check_encoders(head.load(self.work.spatialiser), self.components, self.work.model)

    def row(self, name: str) -> Mapping[str, Any]:
        return self.work.rows[self.place[name]]

    def make(self, system: str, names: Sequence[str], notes: Sequence[Mapping[str, Any]]) -> int:
        """Sounds of some clips; their number. "conditions" as system only keeps what the model is told."""
        from visaudio.evaluation.synth_outputs import store

        if system == "conditions":
            for name in names:
                self.told(name)
            return len(names)
        if system in ("model", "shuffled"):
            sounds = self.sampled(names, shuffled=system == "shuffled")
        else:
            sounds = [self.sound(name, system) for name in names]
        for name, (sound, rate), note in zip(names, sounds, notes, strict=True):
            said = {"id": name, "system": system, "how": NAMES[system], **note}
            if system in ("model", "shuffled"):
                said["sampling"] = asdict(self.components.sampling)
            store(sound_path(self.work.output, system, name), sound, rate, said)
        return len(names)

    # -------------------- from the model

    def told(self, name: str) -> list:
        """Conditions of a clip's windows, from its video alone (no prompt, unknown lens)."""
        from visaudio.evaluation.synth_outputs import kept_conditions
        from visaudio.sampling import encode_conditions

        def make() -> list:
            with self.video(name) as video:
                return list(encode_conditions(self.components, video))

        return kept_conditions(self.work.kept / f"{name}.pt", self.components, make)

    def sampled(self, names: Sequence[str], shuffled: bool) -> list[tuple[np.ndarray, int]]:
        from visaudio.evaluation.synth_outputs import clip_noise, sample

        durations_s = [float(self.row(name)["duration_s"]) for name in names]
        noise = [
            clip_noise(self.components, name, self.work.seed, duration_s)
            for name, duration_s in zip(names, durations_s, strict=True)
        ]
        told = [self.told(self.work.partners[name] if shuffled else name) for name in names]
        sounds = sample(self.components, told, noise, durations_s)
        return [(sound, self.components.preset.sequence.sample_rate) for sound in sounds]

    def codec(self, name: str) -> tuple[np.ndarray, int]:
        from visaudio.evaluation.synth_outputs import codec_round_trip

        with as_file(self.row(name)["audio"]["bytes"], ".flac") as path:
            return codec_round_trip(self.components, path), self.components.codec.sample_rate

    # -------------------- from a mono sound

    def sound(self, name: str, system: str) -> tuple[np.ndarray, int]:
        """One clip's ears (2, S) and their rate."""
        from visaudio.evaluation.baselines.spatialise import spatialise

        if system == "codec":
            return self.codec(name)
        sound, rate = sources.read_mono(self.work.sounds[name])
        if system == "mono":
            return np.stack([sound, sound]), rate
        if system == "two-stage-learned":
            from visaudio.evaluation.baselines.head import difference

            with self.video(name) as video:
                half = difference(self.head, sound, rate, seen_windows(self.components, video))
            return np.stack([sound + half, sound - half]), rate
        return spatialise(sound, rate, self.path(name, system), self.work.sofa), rate

    def path(self, name: str, system: str):
        """Where the clip's sound comes from."""
        if system == "two-stage-truth":
            from visaudio.evaluation.baselines.directions import true_path

            return true_path(read_clip(self.row(name)))
        from visaudio.evaluation.baselines.saliency import motion_path

        with self.video(name) as video:
            return motion_path(video, self.work.hfov_deg)

    @contextmanager
    def video(self, name: str) -> Iterator[Path]:
        """The clip's MP4 as a file; readers want to seek."""
        with as_file(self.row(name)["video"]["bytes"], ".mp4") as path:
            yield path


@contextmanager
def as_file(data: bytes, suffix: str) -> Iterator[Path]:
    """A temporary file. UserError where there is no room for it."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="visaudio-")
    except OSError as error:
        raise UserError(f"no temporary folder can be made ({error.strerror or error})") from error
    with folder as place:
        path = Path(place) / f"clip{suffix}"
        with writing(path):
            path.write_bytes(data)
        yield path


def seen_windows(components: Components, video: Path) -> list[tuple[float, Seen]]:
    """(start in seconds, features and mirrored features) of each of a video's windows."""
    from bi_audio_dataset import media
    from visaudio.evaluation.baselines.head import Seen
    from visaudio.sampling import MIN_DURATION_S, encode_frames, frame_requests
    from visaudio.windows import read_windows, total_windows, window_sequence

    sequence = components.preset.sequence
    length_s = max(media.probe(video).duration_s, MIN_DURATION_S)
    windows = total_windows(sequence, length_s, components.sampling.overlap_s)
    lengths = window_sequence(sequence, windows, length_s)
    starts_s = [window.start / sequence.tokens_per_second for window in windows]
    requests = [frame_requests(components, lengths, start_s) for start_s in starts_s]
    found = []
    for start_s, window in zip(starts_s, read_windows(video, requests), strict=True):
        clip_frames, sync_frames, *spatial = (torch.stack([p, p.flip(-1)]) for p in window)
        both = encode_frames(components, clip_frames, sync_frames, None, None, *spatial)
        features = (both.sync_features, both.spatial_features)
        found.append((start_s, Seen(*(one[None].float().cpu() for one in features))))
    return found


def check_encoders(head: SpatialiserHead, components: Components, model: str) -> SpatialiserHead:
    """UserError where the head was trained on the features of other encoders than this model's."""
    from visaudio.data.parts import digest

    own = {
        name: digest(getattr(components, name)) for name in components.parts if name in head.config.encoders
    }
    wrong = [name for name, value in head.config.encoders.items() if own.get(name) != value]
    if wrong:
        raise UserError(
            f"--spatialiser: was trained on features of other encoders ({', '.join(wrong)}) than those of "
            f"model '{model}': give --model the one whose features it learned from, or train another"
        )
    return head


# -------------------- a worker process

_maker: list[Maker] = []


def start(work: Work, threads: int | None) -> None:
    if threads:
        import cv2

        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends the work
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
    _maker[:] = [Maker(work)]


def make(system: str, names: Sequence[str], notes: Sequence[Mapping[str, Any]]) -> int:
    try:
        return _maker[0].make(system, names, notes)
    except UserError as error:
        raise UserError(str(error)) from None  # of subclasses not all travel between processes
