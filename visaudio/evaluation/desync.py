"""DeSync: by how many seconds a clip's sound and picture seem apart, as Synchformer hears and sees them.

As av-benchmark (github.com/hkchengrex/av-benchmark, of MMAudio) measures it: the likeliest of 21 offsets over
the clip's first 14 segments and over its last 14 (4.8 s each), the mean of both absolute values; the mix of
both ears at 16 kHz; pictures at 25 fps, short side scaled to 224 pixels, centre kept. Beyond it the same for
each ear, and with its sign: positive where the sound comes early. docs/metrics.md has the equations.

Legend: T frames, G segments, E = 3 signals: mix, left, right.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bi_audio_dataset import media
from bi_audio_dataset.schema import UserError
from visaudio import weight_files
from visaudio.encoders.frames import to_signed
from visaudio.encoders.synchformer_audio import SAMPLE_RATE
from visaudio.encoders.synchformer_sync import VIDEO_FPS, Synchformer
from visaudio.evaluation.given_weights import weights_file
from visaudio.evaluation.measures import FigureSpec, Heard, Measure, Scene, Settings, Sound
from visaudio.evaluation.seen import frames_at, picture_state
from visaudio.model.warm_start import REPOSITORY

WEIGHTS = f"{REPOSITORY}:ext_weights/synchformer_state_dict.pth"
WHAT = "the whole Synchformer"
SAMPLES_PER_FRAME = round(SAMPLE_RATE / VIDEO_FPS)
MISSING_FRAMES = 3  # at most so many are made up by repeating a video's last, as av-benchmark does
SLACK_FRAMES = 0.05  # 2 ms: a sound a few samples short of a whole frame has that frame
PICTURES_HELD = 8  # clips whose visual features wait for their other sounds, 0.6 MB each


class Desync(Measure):
    name = "desync"
    needs = frozenset({"video"})
    parallel = False
    figures = (
        FigureSpec("desync", "DeSync", "s"),
        FigureSpec("desync_ears", "DeSync, mean of ears", "s"),
        FigureSpec("desync_offset", "offset, + early", "s", better=""),
        FigureSpec("desync_reference", "DeSync of the reference", "s", better=""),
    )

    def __init__(self, model: Synchformer, fingerprint: str, device: str = "cpu") -> None:
        """fingerprint: of the weights."""
        self.model, self.device = model.to(device), device
        self._key = f"desync-1-{fingerprint[:12]}"
        self._pictures: OrderedDict[tuple, Tensor] = OrderedDict()

    @property
    def key(self) -> str:
        return self._key

    @torch.no_grad()
    def hear(self, sound: Sound, scene: Scene) -> dict[str, np.ndarray]:
        """offset_s (E, 2): over the first and the last segments. UserError for a clip that is too short."""
        frames = self._common_frames(scene)
        visual = self._visual_features(scene, frames)
        ears = torch.from_numpy(sound.at(SAMPLE_RATE)[:, : frames * SAMPLES_PER_FRAME])
        ears = torch.nn.functional.pad(ears, (0, frames * SAMPLES_PER_FRAME - ears.shape[1]))
        signals = torch.stack([ears.mean(0), *ears]) if not torch.equal(ears[0], ears[1]) else ears[:1]
        audible = self.model.audio_features(signals.to(self.device))
        offsets = self.model.offsets_s(visual.expand(len(signals), -1, -1, -1), audible)
        return {"offset_s": offsets.expand(3, -1).numpy().copy()}

    def compare(self, generated: Heard, reference: Heard | None, scene: Scene) -> dict[str, float]:
        apart = np.abs(generated["offset_s"]).mean(axis=1)
        in_step = np.nan if reference is None else np.abs(reference["offset_s"][0]).mean()
        return {
            "desync": float(apart[0]),
            "desync_ears": float(apart[1:].mean()),
            "desync_offset": float(generated["offset_s"][0].mean()),
            "desync_reference": float(in_step),
        }

    def _common_frames(self, scene: Scene) -> int:
        """Whole frames that both the sound and the picture have."""
        video_s = media.probe(scene.video).duration_s
        frames = int(scene.duration_s * VIDEO_FPS + SLACK_FRAMES)
        if frames > video_s * VIDEO_FPS + MISSING_FRAMES:
            frames = int(video_s * VIDEO_FPS + SLACK_FRAMES)
        of = self.model.config
        least = of.visual.segment_frames + (of.head.segments - 1) * of.visual.segment_stride
        if frames < least:
            raise UserError(
                f"{frames / VIDEO_FPS:.2f} s of sound and picture, DeSync compares {of.head.segments} "
                f"segments, {least / VIDEO_FPS:.2f} s"
            )
        return frames

    def _visual_features(self, scene: Scene, frames: int) -> Tensor:
        """(1, G, v, D) of the first `frames`; kept for the clip's other sounds."""
        which = (picture_state(scene.video), frames)
        if which not in self._pictures:
            size = self.model.config.visual.image_size
            seen = to_signed(frames_at(scene.video, np.arange(frames) / VIDEO_FPS, size))
            self._pictures[which] = self.model.visual_features(seen[None].to(self.device))
            while len(self._pictures) > PICTURES_HELD:
                self._pictures.popitem(last=False)
        self._pictures.move_to_end(which)
        return self._pictures[which]


def make(settings: Settings) -> Desync:
    """Weights: "synchformer". Unavailable without them, UserError where they are of something else."""
    path: Path = weights_file(settings, "synchformer", WEIGHTS, WHAT)
    return Desync(Synchformer.load(path), weight_files.sha256(path), settings.device)
