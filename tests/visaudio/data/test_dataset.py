import numpy as np
import pyarrow.parquet as pq
import pytest
from hub_client import HubClient

from bi_audio_dataset.schema import UserError
from visaudio.data import dataset
from visaudio.data.dataset import AudioCache, FrameCache, build_cache, fit_samples, open_dataset, read_clip


def test_rows_of_all_splits_or_of_one(fake_biaudio):
    assert sorted(open_dataset(fake_biaudio)["id"]) == [f"fake-{i:03d}" for i in range(4)]
    assert open_dataset(fake_biaudio, ["validation"])["id"][:] == ["fake-003"]


def test_two_folders_of_one_name_are_two_sets(fake_biaudio, tmp_path):
    rows = pq.read_table(fake_biaudio / "data" / "train-00000-of-00001.parquet")
    for name, part in (("first", rows[:2]), ("second", rows[2:])):
        (tmp_path / name / "set" / "data").mkdir(parents=True)
        card = "---\nconfigs:\n- config_name: default\n  data_files: data/*.parquet\n---\n"
        (tmp_path / name / "set" / "README.md").write_text(card)
        pq.write_table(part, tmp_path / name / "set" / "data" / "train-00000-of-00001.parquet")
    found = [list(open_dataset(tmp_path / name / "set")["id"]) for name in ("first", "second")]
    assert found == [["fake-000", "fake-001"], ["fake-002"]]


def test_clip_shows_its_source_where_it_sounds(fake_biaudio):
    row = open_dataset(fake_biaudio, ["train"])[0]  # azimuth +30 degrees: left
    clip = read_clip(row, times_s=np.array([0.0, 1.0]), sample_rate=22050)
    assert clip.frames.shape == (2, 54, 96, 3)
    red = clip.frames[1].astype(int)
    column = np.argmax((red[..., 0] - red[..., 1]).sum(axis=0))
    assert abs(column / 96 - (0.5 - 0.5 * np.tan(np.radians(30)))) < 0.08
    assert clip.audio.shape == (2, 44100) and clip.audio.dtype == np.float32
    level = 10 * np.log10((clip.audio**2).mean(axis=1))
    assert level[0] - level[1] == pytest.approx(9.0, abs=0.1)
    assert clip.sources[0].class_name == "bell" and clip.sources[0].onset_s.tolist() == pytest.approx(
        [0.4, 1.2]
    )


def test_media_is_not_decoded_unasked(fake_biaudio):
    row = dataset.without_media(open_dataset(fake_biaudio))[0]
    clip = read_clip(row)
    assert clip.frames is None and clip.audio is None and clip.caption.startswith("Visible sound: a small")


def test_other_schema_version_is_refused(fake_biaudio):
    row = {**open_dataset(fake_biaudio)[0], "schema_version": 99}
    with pytest.raises(UserError, match="schema_version 99"):
        read_clip(row)


@pytest.mark.parametrize("place", ["missing", "empty"])
def test_no_dataset_is_one_clear_line(tmp_path, place):
    folder = tmp_path / place
    if place == "empty":
        folder.mkdir()
    with pytest.raises(UserError, match=place) as caught:
        open_dataset(folder)
    assert "\n" not in str(caught.value)


def test_fit_samples_cuts_and_pads():
    audio = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert fit_samples(audio, 2).tolist() == [[0, 1], [3, 4]]
    assert fit_samples(audio, 4).tolist() == [[0, 1, 2, 0], [3, 4, 5, 0]]


def test_audio_cache_holds_the_audio(fake_biaudio, tmp_path):
    rows = open_dataset(fake_biaudio)
    cached = build_cache(rows, AudioCache(22050, 44100), tmp_path, workers=1, progress=False)
    truth = read_clip(rows[2], sample_rate=22050).audio
    assert np.abs(cached[2] / 32767 - np.clip(truth, -1, 1)).max() < 1 / 32767


def test_frame_cache_resumes_and_follows_its_rows(fake_biaudio, tmp_path, monkeypatch):
    rows = open_dataset(fake_biaudio)
    cache = FrameCache(fps=8.0, size=32, num_frames=4)
    first = np.array(build_cache(rows, cache, tmp_path, workers=1, progress=False))
    assert first.shape == (4, 4, 3, 32, 32)
    read = []
    monkeypatch.setattr(FrameCache, "read", lambda self, row: read.append(row["id"]) or np.zeros(self.shape))
    again = build_cache(rows, cache, tmp_path, workers=1, progress=False)
    assert read == [] and np.array_equal(again, first)
    done = np.load(tmp_path / f"{cache.name}.done.npy", mmap_mode="r+")
    done[1] = False  # as if it had been interrupted there
    done.flush()
    build_cache(rows, cache, tmp_path, workers=1, progress=False)
    assert read == [rows[1]["id"]]
    build_cache(rows.select([0, 2]), cache, tmp_path, workers=1, progress=False)
    assert read[1:] == [rows[0]["id"], rows[2]["id"]]


@pytest.mark.slow  # new processes import datasets
def test_a_mistyped_folder_is_soon_one_line_without_a_network(tmp_path):
    """It looks like a Hub's repository: without a network five retries took half a minute, a line each."""
    code = (
        "import time\nasked, said = [], []\nreal, time.sleep = time.sleep, asked.append\n"
        "from visaudio.data.dataset import open_dataset\n"
        "try: open_dataset('clips/tru')\n"
        "except Exception as error: said.append(f'{type(error).__name__} {error}')\n"
        "time.sleep = real\nresult = [said, asked]"
    )
    found = {}
    for offline in ("0", "1"):
        client = HubClient("http://127.0.0.1:9", tmp_path, HF_HUB_OFFLINE=offline)
        try:
            answer = client.run(code)
        finally:
            client.close()
        assert answer.error is None and answer.output == "", answer  # no line on retries
        (found[offline],), waits = answer.value
        assert waits == ([1] if offline == "0" else [])
    start = (
        "UserError no dataset at 'clips/tru': there is no such folder here, and the Hub cannot be reached "
    )
    assert found["0"].startswith(f"{start}([Errno") and "correct the path, or if" in found["0"]
    assert found["1"].startswith(f"{start}(HF_HUB_OFFLINE is set); correct the path, or if")
    assert "\n" not in "".join(found.values())


@pytest.mark.slow  # asks a Hub on loopback
def test_a_mistyped_folder_that_the_hub_does_not_have_either(world):
    code = "from visaudio.data.dataset import open_dataset\nopen_dataset('clips/tru')"
    said = world.wrong(code)
    assert said.startswith("no dataset at 'clips/tru': there is no such folder here, and the Hub says: ")
    assert (
        "doesn't exist on the Hub" in said and "correct the path, or if" in said and "hf auth login" in said
    )
