"""The BiAudio-Synth benchmark is the same set of scenes for everyone, for as long as its version stands."""

import hashlib

import numpy as np
import pytest

from bi_audio_dataset.__main__ import main
from bi_audio_dataset.schema import BENCHMARK_CLIPS, BENCHMARK_SEED, is_benchmark_id
from bi_audio_dataset.sources.synthetic.source import SyntheticSource

SCENES = 80
# of version 1. Where this changes, what systems are scored on does: a new BENCHMARK_VERSION and seed.
DIGEST = "3903d68325048368"


def _described(scene) -> list:
    """What is heard where and when, to the millisecond and the hundredth of a degree."""
    return [
        (
            source.sound.class_name,
            source.sound.member,
            [round(event.onset_s, 3) for event in source.events],
            np.degrees(source.azimuth_rad[::25]).round(2).tolist(),
            round(float(source.distance_m[0]), 3),
        )
        for source in scene.objects
    ]


def test_its_scenes_stay():
    source = SyntheticSource(BENCHMARK_CLIPS, BENCHMARK_SEED, held_out=True)
    names = source.recording_ids()
    assert all(map(is_benchmark_id, names)) and {source.split(name) for name in names} == {"test"}
    scenes = [source.plan(name) for name in names[:SCENES]]
    assert {scene.kind for scene in scenes} == {"single", "several", "offscreen"}
    text = repr([_described(scene) for scene in scenes])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == DIGEST


def test_other_sets_are_none_of_it():
    others = SyntheticSource(2, 1000, held_out=True).recording_ids() + SyntheticSource(2, 70).recording_ids()
    assert not any(map(is_benchmark_id, others))


@pytest.mark.parametrize("flags", [["--seed", "3"], ["--sounds", "x"], ["--sprites", "x"]])
def test_flags_that_would_make_another_are_refused(flags, tmp_path, capsys):
    assert main(["synth", "--benchmark", "--output", str(tmp_path / "set"), *flags]) == 2
    assert f"leave out {flags[0]}, or give --clips N" in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_it_is_that_many_clips_or_another_set(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["synth", "--benchmark", "--clips", "3", "--output", str(tmp_path / "set")])
    assert "not allowed with" in capsys.readouterr().err


def test_the_command_builds_those_scenes(tmp_path, monkeypatch):
    """Cut short to one clip: the flags say which."""
    from bi_audio_dataset import __main__ as command

    monkeypatch.setattr(command, "BENCHMARK_CLIPS", 1)
    made = []
    monkeypatch.setattr(command, "_run", lambda source, *rest, **named: made.append((source, rest[2])) or 0)
    assert main(["synth", "--benchmark", "--output", str(tmp_path / "set")]) == 0
    ((source, settings),) = made
    assert source.recording_ids() == [f"synth-{BENCHMARK_SEED}-000000"] and source.held_out
    assert settings["seed"] == BENCHMARK_SEED and settings["held_out"]
