"""What was heard comes back bit for bit, or not at all."""

import numpy as np
import pytest

from bi_audio_dataset.schema import UserError
from visaudio.evaluation import cache as module
from visaudio.evaluation.cache import Cache, HeardFiles

ARRAYS = {"ild": np.linspace(-3, 3, 7), "silent": np.array([True, False]), "count": np.array(3)}


def test_round_trip(tmp_path):
    cache = Cache(tmp_path)
    assert cache.load("level-1", "abc-8.0") is None
    cache.store("level-1", "abc-8.0", ARRAYS)
    found = cache.load("level-1", "abc-8.0")
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    assert cache.load("level-2", "abc-8.0") is None  # another definition
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text"])
def test_a_damaged_entry_is_none_and_goes(tmp_path, damage):
    cache = Cache(tmp_path)
    cache.store("k", "abc", ARRAYS)
    path = cache.path("k", "abc")
    data = bytearray(path.read_bytes())
    data[data.index(b"ild.npy") + 150] ^= 0xFF
    path.write_bytes({"cut": data[:300], "flip": data, "empty": b"", "text": b"no archive"}[damage])
    assert cache.load("k", "abc") is None
    assert not path.exists()
    cache.store("k", "abc", ARRAYS)
    np.testing.assert_array_equal(cache.load("k", "abc")["ild"], ARRAYS["ild"])


def test_a_file_or_folder_in_the_way_is_one_line(tmp_path):
    (tmp_path / "file").write_text("mine")
    in_the_way = Cache(tmp_path / "file")
    for call in (lambda: in_the_way.load("k", "abc"), lambda: in_the_way.store("k", "abc", ARRAYS)):
        with pytest.raises(UserError, match=f"^{tmp_path}/file/k/ab.*: can"):
            call()
    assert (tmp_path / "file").read_text() == "mine"
    cache = Cache(tmp_path)
    (cache.path("k", "abc") / "inside").mkdir(parents=True)
    with pytest.raises(UserError, match="can neither be read nor removed"):
        cache.load("k", "abc")


def test_pickled_arrays_are_neither_written_nor_read(tmp_path):
    cache = Cache(tmp_path)
    with pytest.raises(ValueError, match="hold no numbers"):
        cache.store("k", "abc", {"a": np.array([{"x": 1}], object)})
    path = cache.path("k", "abc")
    path.parent.mkdir(parents=True)
    np.savez(path, a=np.array([{"x": 1}], object))
    assert cache.load("k", "abc") is None


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden"])
def test_names_that_are_no_file_names(tmp_path, name):
    with pytest.raises(ValueError):
        Cache(tmp_path).path("k", name)


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def stops(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    cache = Cache(tmp_path)
    monkeypatch.setattr(module.np, "savez", stops)
    with pytest.raises(KeyboardInterrupt):
        cache.store("k", "abc", ARRAYS)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_what_was_heard_is_read_back_within_a_bound(tmp_path, monkeypatch):
    cache = Cache(tmp_path)
    for number in range(10):
        cache.store("k", f"e{number}", {"a": np.full(1000, float(number))})
    monkeypatch.setattr(module, "HELD_BYTES", 3 * 8000)
    heard = HeardFiles(cache, "k", [f"e{n}" for n in range(10)] + [None])
    assert len(heard) == 11 and heard[10] is None and heard[-2]["a"][0] == 9
    assert [h["a"][0] for h in heard[2:5]] == [2, 3, 4]
    assert [float(heard[n]["a"][0]) for n in range(10)] == list(range(10))
    assert len(heard._held) == 3
    reads = []
    monkeypatch.setattr(Cache, "load", lambda self, key, entry: reads.append(entry))
    assert heard[9]["a"][0] == 9 and reads == []  # still held


def test_an_entry_that_vanished_is_one_line(tmp_path):
    from bi_audio_dataset.schema import UserError

    with pytest.raises(UserError, match="run it again"):
        HeardFiles(Cache(tmp_path), "k", ["abc"])[0]
