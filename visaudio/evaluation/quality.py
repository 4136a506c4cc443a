"""Quality: FD, KL and IS on PANNs, PaSST and VGGish, of each ear, their mean, and the mix of both.

Networks, embeddings, the direction of KL and the splits of IS are av-benchmark's, the field's reference for
video to audio; it hears the mix alone, the paper reports ears and mix. docs/metrics.md has the equations.

Each network is a measure of its own, so that one that cannot be had takes no other's figures with it.

Legend: C clips, S samples, V views of a sound (left, right, mix), K embeddings of a view, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from visaudio import weight_files
from visaudio.evaluation.audio_networks.cnn14 import Cnn14
from visaudio.evaluation.audio_networks.vggish import Vggish
from visaudio.evaluation.distributions import frechet_of_rows, inception_score, kl_divergence, log_softmax
from visaudio.evaluation.given_weights import weights_file
from visaudio.evaluation.measures import ClipSet, FigureSpec, Heard, Measure, Scene, Settings, Sound

DEFINITION = 1  # part of the cache's key: counted up when what is heard changes
VIEWS = ("left", "right", "mix")
COLUMNS = {"avg": "mean of ears", "mix": "mix", "left": "left", "right": "right"}
RELEASES = "https://github.com"


@dataclass(frozen=True)
class Part:
    """A network. title: in columns; suffix: of its figures' names; source: of its weights; what: in messages;
    load: from tensors by name and where they came from."""

    name: str
    title: str
    suffix: str
    source: str
    what: str
    load: Callable[[Mapping[str, Tensor], str], nn.Module]
    classifies: bool = True


def _load_passt(state: Mapping[str, Tensor], source: str) -> nn.Module:
    from visaudio.evaluation.audio_networks.passt import Passt  # with timm, which the others do without

    return Passt.from_state(state, source)


PARTS = {
    "panns": Part(
        "panns",
        "PANNs",
        "panns",
        "https://zenodo.org/records/3987831/files/Cnn14_16k_mAP%3D0.438.pth"
        "#sha256=e2ee543a27919542c2ea03eabaa70b24dcd4e6c8e05621de6b67a94e4c5058e6",
        "PANNs' Cnn14",
        Cnn14.from_state,
    ),
    "passt": Part(
        "passt",
        "PaSST",
        "passt",
        f"{RELEASES}/kkoutini/PaSST/releases/download/v0.0.1-audioset/passt-s-f128-p16-s10-ap.476-swa.pt"
        "#sha256=302903fa8c4aee817b11dc982da0b29aaf8d11a3e722420476d0a12c9db70c2c",
        "PaSST",
        _load_passt,
    ),
    "vggish": Part(
        "vggish",
        "VGGish",
        "vgg",
        f"{RELEASES}/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth"
        "#sha256=10086976245803799d9194e9a73d9b6c1549c71d1b80106f5cade5608a561f4b",
        "VGGish",
        Vggish.from_state,
        classifies=False,
    ),
}


def make_panns(settings: Settings) -> Measure:
    return make(PARTS["panns"], settings)


def make_passt(settings: Settings) -> Measure:
    return make(PARTS["passt"], settings)


def make_vggish(settings: Settings) -> Measure:
    return make(PARTS["vggish"], settings)


def make(part: Part, settings: Settings) -> Quality:
    """Unavailable where the published weights cannot be had, UserError where given ones are not its own."""
    path = weights_file(settings, part.name, part.source, part.what)
    network = part.load(weight_files.read_state(path, part.what), str(path))
    return Quality(part, network, weight_files.sha256(path)[:16], settings.device)


def columns(part: Part) -> tuple[FigureSpec, ...]:
    kinds = [("fd", "FD", "lower", False)]
    if part.classifies:
        kinds += [("kl", "KL", "lower", True), ("is", "IS", "higher", False)]
    specs = [
        FigureSpec(
            f"{kind}_{part.suffix}_{view}",
            f"{title} {part.title}, {shown}",
            better=better,
            per_clip=per_clip,
            recentred=not per_clip,
        )
        for kind, title, better, per_clip in kinds
        for view, shown in COLUMNS.items()
    ]
    count = FigureSpec(f"n_{part.suffix}", f"embeddings, {part.title}", better="", digits=0, per_clip=False)
    return (*specs, count)


@dataclass(frozen=True)
class Embedded:
    """What C clips were heard as. rows (V, N, D), owner (N,): which clip a row is of; log_p (V, C, classes)
    or None. Of the reference, clips without one have no rows."""

    rows: np.ndarray = field(repr=False)
    owner: np.ndarray = field(repr=False)
    log_p: np.ndarray | None = field(repr=False, default=None)


class Quality(Measure):
    """FD, KL and IS by one network: FD of the clips that have a reference, IS of all."""

    keeps_heard = True
    parallel = False
    resamples = 100
    # embeddings and dimensions beyond which a resample of FD takes too long: no interval then
    widest_resampled = 2000

    def __init__(self, part: Part, network: nn.Module, digest: str, device: str = "cpu") -> None:
        self.part, self.name, self.device = part, part.name, device
        self.network = network.to(device).eval()
        self.figures = columns(part)
        self._digest = digest
        self._kept: tuple[ClipSet, Embedded, Embedded] | None = None

    @property
    def key(self) -> str:
        return f"{self.name}{DEFINITION}-{self._digest}"

    def hear(self, sound: Sound, scene: Scene) -> dict[str, np.ndarray]:
        """embeddings (V, K, D) and, of a network that classifies, log_probabilities (V, classes); float32."""
        # the offset goes first, as in av-benchmark: the resampler would hear it start and stop
        level = np.asarray(sound.audio, np.float32)
        level = level - level.mean(axis=1, keepdims=True)
        audio = Sound(level, sound.sample_rate, sound.channels).at(self.network.sample_rate)
        same = np.array_equal(audio[0], audio[1])
        views = audio[:1] if same else np.stack([audio[0], audio[1], audio.mean(axis=0)])
        with torch.inference_mode(), _full_precision(self.device):
            heard = self.network(torch.from_numpy(views).to(self.device))
        found = {"embeddings": heard.embeddings.float().cpu().numpy()}
        if heard.logits is not None:
            found["log_probabilities"] = log_softmax(heard.logits.float().cpu().numpy()).astype(np.float32)
        return {name: np.repeat(x, len(VIEWS), axis=0) if same else x for name, x in found.items()}

    def compare(self, generated: Heard, reference: Heard | None, scene: Scene) -> dict[str, float]:
        if reference is None or not self.part.classifies:
            return {}
        kl = kl_divergence(reference["log_probabilities"], generated["log_probabilities"])
        return self._of_views("kl", dict(zip(VIEWS, kl.tolist(), strict=True)))

    def _of_views(self, kind: str, values: Mapping[str, float]) -> dict[str, float]:
        values = dict(values) | {"avg": (values["left"] + values["right"]) / 2}
        return {f"{kind}_{self.part.suffix}_{view}": values[view] for view in COLUMNS}

    def summarise(self, clips: ClipSet, index: np.ndarray) -> dict[str, float]:
        found = super().summarise(clips, index)
        generated, reference = self._embedded(clips)
        weight = np.bincount(index, minlength=len(clips.ids))
        both = np.isin(np.arange(len(clips.ids)), reference.owner) * weight
        rows = {name: both[part.owner] for name, part in (("g", generated), ("r", reference))}
        fd = dict.fromkeys(VIEWS, float("nan"))
        resampled = weight.max(initial=0) > 1
        wide = min(generated.rows.shape[1:]) > self.widest_resampled
        if not (resampled and wide):
            for view, a, b in zip(VIEWS, generated.rows, reference.rows, strict=True):
                fd[view] = frechet_of_rows(a, rows["g"], b, rows["r"])
        found |= self._of_views("fd", fd)
        if generated.log_p is not None:
            scores = [inception_score(log_p[index]) for log_p in generated.log_p]
            found |= self._of_views("is", dict(zip(VIEWS, scores, strict=True)))
        return found | {f"n_{self.part.suffix}": float(rows["g"].sum())}

    def remarks(self, clips: ClipSet) -> tuple[str, ...]:
        generated, reference = self._embedded(clips)
        dims = generated.rows.shape[-1]
        fewest = int(min(np.isin(generated.owner, reference.owner).sum(), len(reference.owner)))
        if not 0 < fewest <= dims:
            return ()
        return (
            f"FD on {self.part.title} is of {fewest} embeddings in {dims} dimensions and so too large: it "
            "compares with FD of as many clips alone",
        )

    def _embedded(self, clips: ClipSet) -> tuple[Embedded, Embedded]:
        """Generated and reference; read once for all resamples of the same clips."""
        if self._kept is None or self._kept[0] is not clips:
            self._kept = (clips, _read(clips.generated), _read(clips.reference))
        return self._kept[1:]


def _read(heard) -> Embedded:
    """heard: of each clip, None where there is nothing."""
    parts = [(i, each) for i, each in enumerate(heard) if each is not None]
    if not parts:
        return Embedded(np.zeros((len(VIEWS), 0, 1)), np.zeros(0, int))
    rows = np.concatenate([each["embeddings"] for _, each in parts], axis=1)
    owner = np.repeat([i for i, _ in parts], [each["embeddings"].shape[1] for _, each in parts])
    has_classes = "log_probabilities" in parts[0][1]
    log_p = np.stack([each["log_probabilities"] for _, each in parts], axis=1) if has_classes else None
    return Embedded(rows, owner, log_p)


def _full_precision(device: str):
    """Convolutions without TF32, which cuDNN takes by default: figures do not depend on the device."""
    if torch.device(device).type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
