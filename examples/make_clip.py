"""Makes the example clips: silent views of BiAudio-Synth scenes that are in no training set. CC0-1.0.

    python examples/make_clip.py            writes examples/bird.mp4 and examples/bell.mp4
    python examples/make_clip.py --output DIR

The bytes are the same on each run with one build of x264. The scenes' own sound is left out of the files; it
can be made again with `truth_ears`, which docs/make_figures.py compares the model's with.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from bi_audio_dataset import media, sphere
from bi_audio_dataset.binaural import BinauralDecoder, render_binaural
from bi_audio_dataset.hrtf import spherical_head
from bi_audio_dataset.sources.synthetic.panorama import render_panorama
from bi_audio_dataset.sources.synthetic.scene import Scene, plan_scene
from bi_audio_dataset.sources.synthetic.source import SAMPLE_RATE, render_sound_field
from bi_audio_dataset.trajectory import TrajectoryConfig, random_path
from bi_audio_dataset.viewport import Viewport

FPS = 25
HFOV_DEG = 90.0
WIDTH, HEIGHT = 640, 360
PANORAMA = (1536, 768)
SEED = 2026


@dataclass(frozen=True)
class Example:
    """One clip: scene `index` of SEED, from its start, seen by a camera that turns with the same seed."""

    index: int
    duration_s: float

    @cached_property
    def scene(self) -> Scene:
        return plan_scene(SEED, self.index, 8.0, held_out=True)

    @property
    def num_frames(self) -> int:
        return round(self.duration_s * FPS)

    @cached_property
    def rotations(self) -> np.ndarray:
        """Camera-to-world (F, 3, 3); the camera first looks at about where the object is on average."""
        rng = np.random.default_rng([SEED, self.index])
        limits = TrajectoryConfig(static_probability=0.0).within_view(HFOV_DEG)
        yaw_rad = float(np.mean(self.scene.objects[0].azimuth_rad))
        return random_path(rng, 8 * FPS, FPS, yaw_rad, 0.0, limits).rotations()[: self.num_frames]

    def views(self) -> Iterator[np.ndarray]:
        """Pictures (HEIGHT, WIDTH, 3) uint8."""
        lens = Viewport(WIDTH, HEIGHT, np.radians(HFOV_DEG), *PANORAMA)
        for panorama, rotation in zip(render_panorama(self.scene, *PANORAMA), self.rotations, strict=False):
            yield lens.render(panorama, rotation)

    def lateral_deg(self) -> np.ndarray:
        """Lateral angle of the object per frame (F,), positive left."""
        item = self.scene.objects[0]
        world = sphere.direction(item.azimuth_rad, item.elevation_rad)[: self.num_frames]
        azimuth, elevation = sphere.angles(sphere.to_camera(world, self.rotations))
        return np.degrees(sphere.lateral_angle(azimuth, elevation))

    def truth_ears(self) -> tuple[np.ndarray, int]:
        """The scene's own binaural sound, (2, N) float32, and its rate in Hz."""
        foa, _ = render_sound_field(self.scene, np.random.default_rng(self.scene.background_seed))
        foa = foa[:, : round(self.duration_s * SAMPLE_RATE)]
        decoder = BinauralDecoder(spherical_head(SAMPLE_RATE))
        return render_binaural(foa, decoder, self.rotations, FPS, SAMPLE_RATE), SAMPLE_RATE


EXAMPLES = {
    "bird": Example(index=509, duration_s=8.0),  # calls 18 times, first to the right, then to the left
    "bell": Example(index=304, duration_s=3.0),  # shorter than the model's window
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Make the example clips.")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, metavar="DIR")
    folder = parser.parse_args(arguments).output
    folder.mkdir(parents=True, exist_ok=True)
    for name, example in EXAMPLES.items():
        path = folder / f"{name}.mp4"
        media.write_video(path, example.views(), FPS, crf=20, preset="slow")
        print(f"{path}: {example.duration_s:g} s, {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
