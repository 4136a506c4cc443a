"""IB-score: the cosine of a clip's sound and picture in ImageBind's space (Girdhar et al., arXiv 2305.05665).

As av-benchmark measures it. Picture: frames at 0.5 Hz, short side scaled to 224 pixels, three square crops
(left, centre, right; top to bottom where it stands upright); every two frames that follow each other are a
clip of the network, whose embeddings are averaged. Sound: three windows of 2 s, spread over the clip, as
Kaldi's log-mel frames, embeddings averaged.

ImageBind's package is not on PyPI and not a dependency; its weights are CC BY-NC-SA 4.0. Where either is not
here, the measure is unavailable. The package is imported when the measure is made, and its own downloader
never runs.

Legend: E = 3 signals: mix, left, right; T frames, W windows, D dimensions of an embedding.
"""

from __future__ import annotations

import importlib
import warnings
from collections import OrderedDict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bi_audio_dataset import media
from bi_audio_dataset.schema import UserError, reason_of
from visaudio import weight_files
from visaudio.encoders.clip_models import MEAN, STD
from visaudio.evaluation.measures import (
    FigureSpec,
    Heard,
    Measure,
    Scene,
    Settings,
    Sound,
    Unavailable,
)
from visaudio.evaluation.seen import picture_state

PACKAGE = "imagebind.models.imagebind_model"
OWN_PLACE = Path(".checkpoints") / "imagebind_huge.pth"  # where the package's own loader keeps it
URL = "https://dl.fbaipublicfiles.com/imagebind/imagebind_huge.pth"
SAMPLE_RATE = 16000
WINDOW_S, WINDOWS = 2.0, 3
N_FFT, MELS, MEL_FRAMES = 512, 128, 204
MEL_MEAN, MEL_STD = -4.268, 9.138
PICTURE_SIZE, PICTURE_PERIOD_S = 224, 2.0
PICTURES_HELD = 8  # clips whose embeddings wait for their other sounds


class ImageBind(Measure):
    name = "imagebind"
    needs = frozenset({"video"})
    parallel = False
    figures = (
        FigureSpec("ib_score", "IB-score", "", "higher"),
        FigureSpec("ib_score_ears", "IB-score, mean of ears", "", "higher"),
        FigureSpec("ib_score_reference", "IB-score of the reference", "", ""),
    )

    def __init__(self, model: nn.Module, fingerprint: str, device: str = "cpu") -> None:
        """model: ImageBind's: a dict of inputs by "vision" and "audio" -> a dict of embeddings."""
        self.model, self.device = model.to(device), device
        self._key = f"imagebind-1-{fingerprint[:12]}"
        self._pictures: OrderedDict[tuple, Tensor] = OrderedDict()

    @property
    def key(self) -> str:
        return self._key

    @torch.no_grad()
    def hear(self, sound: Sound, scene: Scene) -> dict[str, np.ndarray]:
        """cosine (E,) of the sound's embeddings with the picture's."""
        ears = sound.at(SAMPLE_RATE)
        signals = [ears.mean(axis=0), *ears] if not np.array_equal(*ears) else [ears[0]]
        heard = torch.stack([sound_input(signal) for signal in signals]).to(self.device)
        audible = self.model({"audio": heard})["audio"]
        cosine = F.cosine_similarity(audible.double(), self._picture(scene).double(), dim=-1)
        return {"cosine": cosine.expand(3).cpu().numpy().copy()}

    def compare(self, generated: Heard, reference: Heard | None, scene: Scene) -> dict[str, float]:
        return {
            "ib_score": float(generated["cosine"][0]),
            "ib_score_ears": float(generated["cosine"][1:].mean()),
            "ib_score_reference": float("nan" if reference is None else reference["cosine"][0]),
        }

    def _picture(self, scene: Scene) -> Tensor:
        """(1, D); kept for the clip's other sounds."""
        which = (picture_state(scene.video), round(scene.duration_s, 3))
        if which not in self._pictures:
            seen = picture_input(scene.video, scene.duration_s)[None].to(self.device)
            self._pictures[which] = self.model({"vision": seen})["vision"]
            while len(self._pictures) > PICTURES_HELD:
                self._pictures.popitem(last=False)
        return self._pictures[which]


# -------------------- what the network is given


def sound_input(signal: np.ndarray) -> Tensor:
    """(S,) at SAMPLE_RATE -> (W, 1, MELS, MEL_FRAMES): windows from the sound's beginning to its end.

    A window's mean is taken out; what a short sound lacks of it is silence after the logarithm.
    """
    length = round(WINDOW_S * SAMPLE_RATE)
    starts = np.linspace(0, max(0, len(signal) - length), WINDOWS).astype(int)
    frames = [_log_mel(signal[start : start + length]) for start in starts]
    return (torch.stack(frames)[:, None] - MEL_MEAN) / MEL_STD


def _log_mel(window: np.ndarray) -> Tensor:
    """Kaldi's log-mel frames (25 ms every 10 ms, pre-emphasis 0.97): (S,) -> (MELS, MEL_FRAMES)."""
    from transformers.audio_utils import spectrogram, window_function

    frame, hop = 400, 160
    window = np.pad(window, (0, max(0, frame - len(window)))).astype(np.float64)
    found = spectrogram(
        window - window.mean(),
        window_function(frame, "hann", periodic=False),
        frame,
        hop,
        N_FFT,
        power=2.0,
        center=False,
        preemphasis=0.97,
        mel_filters=_kaldis_bands(),
        log_mel="log",
        mel_floor=float(np.finfo(np.float32).eps),
        remove_dc_offset=True,
    )
    found = torch.from_numpy(found).float()[:, :MEL_FRAMES]
    return F.pad(found, (0, MEL_FRAMES - found.shape[1]))


@lru_cache(maxsize=1)
def _kaldis_bands() -> np.ndarray:
    """(N_FFT / 2 + 1, MELS) triangles, even in mel."""
    from transformers.audio_utils import mel_filter_bank

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the lowest bands, which lie between bins, as in training
        return mel_filter_bank(
            N_FFT // 2 + 1,
            MELS,
            20.0,
            SAMPLE_RATE / 2,
            SAMPLE_RATE,
            norm=None,
            mel_scale="kaldi",
            triangularize_in_mel_space=True,
        )


def picture_input(video: Path, duration_s: float) -> Tensor:
    """-> (crops and pairs, 3, 2, 224, 224), of frames in the middle of each 2 s.

    FFmpeg's fps=0.5, by which av-benchmark reads, gives the frame before each of these. In 2 to 4 s there is
    one, in less the middle one, which then makes the pair alone.
    """
    shown_s = min(duration_s, media.probe(video).duration_s)
    count = int(shown_s / PICTURE_PERIOD_S + 1e-6)
    times = (np.arange(count) + 0.5) * PICTURE_PERIOD_S if count else np.array([shown_s / 2])
    frames = torch.cat([_scaled(block) for block in media.iter_frames(video, times, chunk=4)])
    if len(frames) == 1:
        frames = frames.repeat(2, 1, 1, 1)
    pairs = torch.stack([frames[:-1], frames[1:]], dim=2)  # (T - 1, 3, 2, H, W)
    return torch.cat([_crop(pairs, place) for place in (0, 1, 2)])


def _scaled(frames: np.ndarray) -> Tensor:
    """uint8 (T, H, W, 3) -> (T, 3, H', W'), the short side PICTURE_SIZE, normalised as CLIP's pictures."""
    pictures = torch.from_numpy(frames).permute(0, 3, 1, 2)
    scale = PICTURE_SIZE / min(pictures.shape[-2:])
    size = tuple(max(PICTURE_SIZE, int(side * scale)) for side in pictures.shape[-2:])
    pictures = F.interpolate(pictures, size=size, mode="bicubic", antialias=True).float() / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (pictures - mean) / std


def _crop(pictures: Tensor, place: int) -> Tensor:
    """The first, middle or last square of (..., H, W) along its longer side."""
    spare = [side - PICTURE_SIZE for side in pictures.shape[-2:]]
    top, left = (0 if place == 0 else left_over if place == 2 else -(-left_over // 2) for left_over in spare)
    return pictures[..., top : top + PICTURE_SIZE, left : left + PICTURE_SIZE]


# -------------------- the package and its weights


def make(settings: Settings) -> ImageBind:
    """Weights: "imagebind", imagebind_huge.pth. Unavailable without the package or the default's file."""
    try:
        package: Any = importlib.import_module(PACKAGE)
    except ImportError as error:
        raise Unavailable(
            f"no IB-score: the package imagebind cannot be imported ({reason_of(error)}); "
            "it is at github.com/facebookresearch/ImageBind"
        ) from error
    source = settings.weights.get("imagebind", str(OWN_PLACE))
    if "imagebind" not in settings.weights and not OWN_PLACE.is_file():
        raise Unavailable(
            f"no IB-score: no weights at {OWN_PLACE}; fetch {URL} (4.5 GB, CC BY-NC-SA 4.0), or name the "
            "file you have (--weights imagebind=FILE)"
        )
    path = weight_files.fetch(source, "ImageBind")
    try:
        model = package.imagebind_huge(pretrained=False)
    except (AttributeError, TypeError) as error:
        raise UserError(f"the package imagebind has no imagebind_huge(pretrained=False) ({error})") from error
    weight_files.load_into(model, weight_files.read_state(path, "ImageBind"), path, "ImageBind (huge)")
    model = model.eval().requires_grad_(False)
    return ImageBind(model, weight_files.sha256(path), settings.device)
