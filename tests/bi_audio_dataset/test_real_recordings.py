"""Real ambisonic recordings under composed 360-degree pictures, by the command line from film to dataset."""

import json
import math

import numpy as np
import pytest
from compose import (
    FORMS,
    FRONT_DEG,
    LICENCE,
    RECORDINGS,
    built,
    compose,
    correlations,
    from_front_deg,
    pictures,
    read_recording,
    sound_file,
)
from foa_films import panorama

from bi_audio_dataset import ambisonics, manifest, media
from bi_audio_dataset.__main__ import main
from bi_audio_dataset.build_config import AIM_FROM_HZ
from bi_audio_dataset.render import high_passed

SECONDS = 2.0
#: Each recording in another form; the first is a planar one, and quiet.
CHOSEN = {
    "outdoor": "PCM, mkv",
    "orchestra": "AAC 4.0, mp4",
    "lab1": "Opus family 2, mkv",
    "lab3": "FLAC beside mp4",
}


@pytest.fixture(scope="module")
def shared_media(shared_dir):
    return shared_dir / "media"


@pytest.fixture(scope="module")
def films(shared_media, tmp_path_factory):
    """(folder, name -> (film, sound that went in)) of CHOSEN."""
    folder, made = tmp_path_factory.mktemp("films"), {}
    for seed, (name, form) in enumerate(CHOSEN.items()):
        foa, rate = read_recording(shared_media, name, SECONDS)
        shown = pictures(SECONDS, seed, (384, 192))
        made[name] = compose(folder, name, foa, rate, FORMS[form], shown)[:2]
    return folder, made


@pytest.fixture(scope="module")
def clips(films, shared_media, tmp_path_factory):
    """Clip id -> what the command line has built of CHOSEN, two views each, through KEMAR's ears."""
    folder, made = films
    dataset = tmp_path_factory.mktemp("built") / "set"
    head = shared_media / "hrir" / "MIT_KEMAR_normal_pinna.sofa"
    command = ["build", str(folder), "--output", str(dataset), "--clip-s", f"{SECONDS:g}", "--views", "2"]
    command += ["--channels", "ambix", "--licence", LICENCE, "--provenance", "JSAmbisonics"]
    command += ["--sofa", str(head), "--size", "128x72", "--mark", "silent"]
    assert main(command) == 0
    return dataset, built(dataset, {name: film for name, (film, _) in made.items()})


@pytest.mark.slow
def test_command_line_builds_a_dataset_that_validates_and_loads(clips, capsys):
    import datasets

    folder, found = clips
    assert sorted(found) == sorted(f"{name}-v{view}" for name in RECORDINGS for view in range(2))
    assert main(["validate", str(folder)]) == 0
    assert main(["status", str(folder)]) == 0
    told = capsys.readouterr().out
    assert "8 " in told and "no problems" in told and "recordings: 4 built" in told
    splits = datasets.load_dataset(str(folder))
    rows = {row["id"]: row for split in splits.values() for row in split}
    assert rows.keys() == found.keys()
    for row in rows.values():
        name = row["recording_id"]
        assert row["licence"] == LICENCE
        assert row["provenance"] == f"JSAmbisonics: {found[row['id']].film.name}"
        assert row["hrir_set"] == "MIT_KEMAR_normal_pinna"
        assert CHOSEN[name].split(", ")[-1] in ("FLAC beside mp4", row["provenance"].rpartition(".")[2])


@pytest.mark.slow
def test_most_energy_comes_from_where_the_manifest_says(clips):
    """In front, for all of them; and not where other channel orders would have put it."""
    _, found = clips
    for name in RECORDINGS:
        direction = found[f"{name}-v0"].entry["direction"]
        assert from_front_deg(direction["azimuth_deg"], direction["elevation_deg"]) < FRONT_DEG, name
        assert direction["confidence"] > 0.3
        foa, rate = media.read_audio(sound_file(found[f"{name}-v0"].film))
        wrong = np.degrees(ambisonics.max_energy_direction(foa[[0, 3, 1, 2]], rate)[:2])  # taken for FuMa
        assert from_front_deg(*wrong) > FRONT_DEG, name


@pytest.mark.slow
def test_ears_hear_it_on_the_side_where_the_camera_has_it(clips):
    """Level difference of the published ears against cardioids in the field that turn with the camera."""
    _, found = clips
    ears, cardioids = np.array([clip.sides_db() for clip in found.values()]).T
    aside = np.abs(cardioids) > 1
    assert aside.sum() >= 3 and (ears * cardioids > 0)[aside].all(), (ears, cardioids)
    assert np.corrcoef(ears, cardioids)[0, 1] > 0.9
    # the recording that is known to be planar, and no other
    rows = [row for row in manifest.read(clips[0] / "manifest.jsonl") if row["kind"] == "recording"]
    assert [row["id"] for row in rows if "planar" in row["marks"]] == ["outdoor"]
    # SN3D: the first order holds about as much energy as W; N3D would hold three times that, as the planar
    # recording's own dipoles do
    ratios = {row["id"]: row["measures"]["dead_channel.field_ratio"] for row in rows}
    assert all(0.4 < ratio < 1.5 for name, ratio in ratios.items() if name != "outdoor"), ratios


@pytest.mark.parametrize("name", RECORDINGS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_keeps_the_channels(shared_media, tmp_path, name, form):
    """Bit-exact where nothing is lost; else each channel is itself, over 0.99, and no other."""
    foa, rate = read_recording(shared_media, name, 2.0)
    path, sent, rate = compose(tmp_path, "a", foa, rate, FORMS[form], [panorama()] * 50)
    read, _ = media.read_audio(sound_file(path))
    if FORMS[form].lossless:
        np.testing.assert_array_equal(read, sent)
        return
    table, original = correlations(read, sent, rate), correlations(sent, sent, rate)
    heard = ~np.isnan(np.diag(original))
    assert heard.sum() == (3 if name == "outdoor" else 4)  # its Z is silence with noise
    assert np.diag(table)[heard].min() > 0.99
    np.testing.assert_allclose(table[heard][:, heard], original[heard][:, heard], atol=0.05)


@pytest.mark.slow
def test_sphere360_takes_the_listed_seconds_of_a_real_recording(shared_media, tmp_path):
    """<id>.mp4 and <id>.flac as Sphere360 is handed around: of 15 s the list names those from the 3rd on."""
    films = tmp_path / "films"
    films.mkdir()
    video_id = "orchestra_0"  # 11 characters, and it may look like a segment itself
    foa, rate = read_recording(shared_media, "orchestra")
    compose(films, video_id, foa, rate, FORMS["FLAC beside mp4"], pictures(15.0, 1, (192, 96)))
    (films / "train.txt").write_text("another0000_0\n")
    (films / "test.txt").write_text(f"{video_id}_3\n")
    info = {"license": "Creative Commons Attribution license (reuse allowed)"}
    (films / f"{video_id}.info.json").write_text(json.dumps(info))
    command = ["build", str(films), "--source", "sphere360", "--output", str(tmp_path / "set")]
    assert main([*command, "--clip-s", "10", "--size", "64x36"]) == 0
    (clip,) = built(tmp_path / "set", {video_id: films / f"{video_id}.mp4"}).values()
    assert (clip.entry["start_s"], clip.row["split"], clip.row["licence"]) == (3.0, "test", "CC-BY-4.0")
    heard = high_passed(foa[:, 3 * rate : 13 * rate], rate, AIM_FROM_HZ)
    azimuth, elevation, _ = ambisonics.max_energy_direction(heard, rate)
    direction = clip.entry["direction"]
    assert direction["azimuth_deg"] == pytest.approx(math.degrees(azimuth), abs=1e-3)
    assert direction["elevation_deg"] == pytest.approx(math.degrees(elevation), abs=1e-3)
