"""Where in a picture things are that may sound: the visual side of Spatial AV-Align.

A detector gives boxes as columns of the picture: left edge 0, right edge 1. `truth` takes what the row of
BiAudio-Synth says of its sources; any other name is an object detector of transformers, a folder or a
repository of the Hub with config.json, preprocessor_config.json and *.safetensors.

Legend: N boxes, T pictures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from bi_audio_dataset import media
from bi_audio_dataset.schema import UserError, reason_of
from visaudio import hub_access
from visaudio.evaluation.lens import column_of
from visaudio.evaluation.measures import Scene, Unavailable

RATE_HZ = 4.0  # pictures a second, as SAVGBench looks at them
CONFIDENCE = 0.3
FILES = ("config.json", "preprocessor_config.json")
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")

# (scene) -> (N, 3) float64: number of the picture at RATE_HZ, first and last column of a box
Detector = Callable[[Scene], np.ndarray]


def picture_count(duration_s: float) -> int:
    """Pictures at RATE_HZ in a clip; at least one."""
    return max(1, round(duration_s * RATE_HZ))


def truth_boxes(scene: Scene) -> np.ndarray:
    """(N, 3): the sources that the row says are in view, as wide as they are; cut at the picture's edges."""
    clip = scene.truth
    boxes = []
    for number in range(picture_count(scene.duration_s)):
        at = round(number / RATE_HZ * clip.truth_rate_hz)
        for source in clip.sources:
            if at >= len(source.visible) or not source.visible[at]:
                continue
            half = source.size_deg[at] / 2
            edges = source.azimuth_deg[at] + np.array([half, -half])
            first, last = np.clip(column_of(edges, clip.hfov_deg), 0.0, 1.0)
            boxes.append((number, first, last))
    return np.array(boxes, np.float64).reshape(-1, 3)


class TransformersDetector:
    """An `AutoModelForObjectDetection`: DETR, YOLOS, RT-DETR and whatever else transformers has.

    labels: only boxes with these names of the model's config count (SAVGBench: person); none: all of them.
    """

    def __init__(self, name: str, labels: Sequence[str] = (), device: str = "cpu", batch: int = 8) -> None:
        import torch
        from transformers import AutoImageProcessor, AutoModelForObjectDetection

        self.folder = find(name)
        self.device, self.batch = torch.device(device), batch
        try:
            self.processor = AutoImageProcessor.from_pretrained(self.folder, local_files_only=True)
            self.model = AutoModelForObjectDetection.from_pretrained(
                self.folder, local_files_only=True, use_safetensors=True
            )
        except Exception as error:  # transformers raises a score of classes for what is not such a folder
            reason = reason_of(error, 160)
            raise Unavailable(f"detector={name}: no object detector of transformers ({reason})") from error
        self.model.to(self.device).eval()
        self.digest = digest(self.folder)
        names = self.model.config.id2label
        unknown = sorted(set(labels) - set(names.values()))
        if unknown:
            raise UserError(
                f"detector_labels: {', '.join(unknown)} not among the labels of {name}: "
                f"{', '.join(sorted(names.values())[:12])}, ..."
            )
        self.wanted = {number for number, label in names.items() if not labels or label in labels}

    def __call__(self, scene: Scene) -> np.ndarray:
        times = np.arange(picture_count(scene.duration_s)) / RATE_HZ
        pictures = media.read_frames(str(scene.video), times, num_threads=1)
        return self.boxes(pictures)

    def boxes(self, pictures: np.ndarray) -> np.ndarray:
        """(T, H, W, 3) uint8 -> (N, 3)."""
        import torch

        found = []
        for start in range(0, len(pictures), self.batch):
            block = list(pictures[start : start + self.batch])
            inputs = self.processor(images=block, return_tensors="pt").to(self.device)
            with torch.inference_mode():
                outputs = self.model(**inputs)
            # target size 1 x 1: boxes come as shares of the picture
            results = self.processor.post_process_object_detection(
                outputs, threshold=CONFIDENCE, target_sizes=torch.ones(len(block), 2)
            )
            for number, result in enumerate(results):
                for label, box in zip(result["labels"].tolist(), result["boxes"].tolist(), strict=True):
                    if label in self.wanted:
                        found.append((start + number, *np.clip((box[0], box[2]), 0.0, 1.0)))
        return np.array(found, np.float64).reshape(-1, 3)


def digest(folder: Path) -> str:
    """Of its weights and settings, 12 digits: what is cached of another detector is not used."""
    from visaudio import weight_files

    files = [p for p in sorted(folder.iterdir()) if p.name in FILES or p.suffix == ".safetensors"]
    return hashlib.sha256("".join(weight_files.sha256(p) for p in files).encode()).hexdigest()[:12]


def find(name: str) -> Path:
    """The folder of a detector; from the Hub's cache, or the Hub, where the name is a repository's."""
    if Path(name).is_dir():
        return Path(name)
    if not hub_access.on_hub(name):
        raise UserError(f"detector={name}: expected truth, a folder, or owner/name of a detector on the Hub")
    what = f"object detector {name}"
    try:
        folders = [hub_access.fetch_file(name, file, what=what).parent for file in FILES]
        fetch_weights(name, what)
    except UserError as error:
        raise Unavailable(f"{error}; or give the folder of a detector you have") from error
    return folders[0]


def fetch_weights(name: str, what: str) -> None:
    """One safetensors file, or an index and its parts."""
    import json

    try:
        hub_access.fetch_file(name, WEIGHTS[0], what=what)
        return
    except UserError as first:
        try:
            index = hub_access.fetch_file(name, WEIGHTS[1], what=what)
        except UserError:
            raise first from None
    try:
        files = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index}: names no files of weights of {what}") from error
    for file in files:
        hub_access.fetch_file(name, file, what=what)
