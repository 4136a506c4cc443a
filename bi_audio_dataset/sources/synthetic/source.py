"""BiAudio-Synth as a source: each scene is written as a 360-degree film with an AmbiX track, then read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bi_audio_dataset import media
from bi_audio_dataset.schema import TRUTH_RATE_HZ, SourceTruth, UserError
from bi_audio_dataset.sources.base import Recording
from bi_audio_dataset.sources.synthetic import rooms, sounds
from bi_audio_dataset.sources.synthetic.panorama import render_panorama
from bi_audio_dataset.sources.synthetic.scene import Scene, plan_scene

SAMPLE_RATE = 44100


class SyntheticSource:
    """`clips` procedural recordings of `duration_s`, all from `seed`.

    Every 20th recording is a test one and another 20th validates; test recordings, or all of them with
    `held_out=True`, draw looks, sizes, backgrounds and sound parameters that training ones never do.
    sounds_dir, sprites_dir: folders of audio files and of PNG pictures that replace the procedural ones.
    """

    name = "BiAudio-Synth"
    licence = "CC0-1.0"

    def __init__(
        self,
        clips: int,
        seed: int = 0,
        sounds_dir: str | Path | None = None,
        sprites_dir: str | Path | None = None,
        held_out: bool = False,
        duration_s: float = 8.0,
    ):
        if clips < 1:
            raise UserError(f"clips: got {clips}, expected at least 1")
        self.clips, self.seed, self.held_out, self.duration_s = clips, seed, held_out, duration_s
        self.folder_sounds = sounds.load_folder_sounds(Path(sounds_dir)) if sounds_dir else None
        self.sprites = find_sprites(Path(sprites_dir)) if sprites_dir else None

    def recording_ids(self) -> list[str]:
        return [f"synth-{self.seed}-{i:06d}" for i in range(self.clips)]

    def split(self, recording_id: str) -> str:
        if self.held_out:
            return "test"
        return {19: "test", 9: "validation"}.get(self._index(recording_id) % 20, "train")

    def plan(self, recording_id: str) -> Scene:
        """The scene of a recording; no file is written."""
        return plan_scene(
            self.seed,
            self._index(recording_id),
            self.duration_s,
            held_out=self.split(recording_id) == "test",
            folder_sounds=self.folder_sounds,
            sprites=self.sprites,
        )

    def fetch(self, recording_id: str, workdir: Path) -> Recording:
        """Render the scene into `workdir`: an equirectangular .mp4 and a 4-channel AmbiX .flac."""
        scene = self.plan(recording_id)
        video, audio = workdir / f"{recording_id}.mp4", workdir / f"{recording_id}.flac"
        media.write_video(video, render_panorama(scene), fps=TRUTH_RATE_HZ, crf=14, preset="ultrafast")
        foa, truth = render_sound_field(scene, np.random.default_rng(scene.background_seed))
        media.write_audio(audio, foa, SAMPLE_RATE, subtype="PCM_24")
        return Recording(
            recording_id=recording_id,
            video_path=video,
            audio_path=audio,
            licence=self.licence,
            provenance=f"{self.name} seed={self.seed} index={self._index(recording_id)}",
            room=scene.room.name,
            truth=truth,
            attributes={"scene": scene.kind},
        )

    @staticmethod
    def _index(recording_id: str) -> int:
        return int(recording_id.rsplit("-", 1)[1])


def render_sound_field(scene: Scene, rng: np.random.Generator) -> tuple[np.ndarray, tuple[SourceTruth, ...]]:
    """First-order sound field (4, N) float32 of the scene, peak at most 0.9, and the truth of each source."""
    samples = round(scene.duration_s * SAMPLE_RATE)
    foa = np.zeros((4, samples), np.float32)
    truths = []
    for item in scene.objects:
        dry = sounds.render_sound(item.sound, item.events, samples, SAMPLE_RATE)
        foa += rooms.render_foa(dry, item.positions_m, TRUTH_RATE_HZ, scene.room, SAMPLE_RATE, rng)
        truths.append(
            SourceTruth(
                class_name=item.sound.class_name,
                member=item.sound.member,
                caption=item.sound.caption,
                on_screen_kind=item.kind,
                azimuth_rad=item.azimuth_rad,
                elevation_rad=item.elevation_rad,
                distance_m=item.distance_m,
                size_rad=item.size_rad,
                onset_s=tuple(event.onset_s for event in item.events),
                envelope_db=sounds.envelope_db(dry, SAMPLE_RATE, TRUTH_RATE_HZ),
            )
        )
    foa += diffuse_noise(samples, rng) * 10 ** (scene.noise_db / 20)
    return foa * np.float32(0.9 / max(0.9, float(np.abs(foa).max()))), tuple(truths)


def diffuse_noise(samples: int, rng: np.random.Generator) -> np.ndarray:
    """Pink-ish diffuse field (4, N), unit RMS in W: independent channels, first order at 1/sqrt(3) (SN3D)."""
    spectrum = np.fft.rfft(rng.standard_normal((4, samples)))
    spectrum *= (np.maximum(np.arange(spectrum.shape[1]), 20.0) ** -0.5)[None]
    noise = np.fft.irfft(spectrum, samples)
    noise /= np.sqrt((noise**2).mean(axis=1, keepdims=True))
    return (noise * np.array([1, 3**-0.5, 3**-0.5, 3**-0.5])[:, None]).astype(np.float32)


def find_sprites(folder: Path) -> dict[str, str]:
    """PNG pictures of a folder by class name: `sprite_bell.png` or `bell.png` is for the class `bell`."""
    if not folder.is_dir():
        raise UserError(f"sprites {folder}: not a folder; give a folder of PNG pictures with transparency")
    found = {path.stem.removeprefix("sprite_"): str(path) for path in sorted(folder.glob("*.png"))}
    if not found:
        raise UserError(f"sprites {folder}: no .png file in it; give PNG pictures with transparency")
    return found
