"""benchmarks/media.py measures what it says: each decoder decodes, and files are compared."""

from pathlib import Path

import pytest
from scripts import load_script

from bi_audio_dataset.media import encode

FILE = Path(__file__).parents[3] / "benchmarks/media.py"


@pytest.fixture(scope="module")
def benchmark():
    if not FILE.is_file():
        pytest.skip("no benchmarks/ beside the tests")
    return load_script(FILE)


@pytest.mark.slow
def test_decoders_and_encodes_are_told(benchmark, capsys, monkeypatch):
    """On a film of 1.5 million pixels a frame, and two encodes of one width."""
    monkeypatch.setattr(benchmark, "WIDTHS", (128,))
    monkeypatch.setattr(benchmark, "FILMS", 1)
    assert benchmark.main(["--size", "1760x880", "--frames", "5", "--encodes", "2"]) == 0
    decord, pyav, encodes = capsys.readouterr().out.splitlines()
    assert decord.startswith("decord 1760x880: ") and pyav.startswith("pyav 1760x880: ")
    assert all(0 < float(line.split()[2]) < 2000 for line in (decord, pyav))
    assert encodes.startswith("128 wide, 2 encodes: files of 0 of")


def test_a_file_that_differs_is_counted(benchmark, monkeypatch):
    """The setting asked for is the encoder's while the files are made, and the builder's again after."""
    seen, usual = [], encode.STABLE_X264
    files = iter([{"a"}, {"a", "b"}, {"c", "d", "e"}])
    monkeypatch.setattr(benchmark, "_files", lambda *_: seen.append(encode.STABLE_X264) or next(files))
    assert benchmark.encodes(64, 2, tree=True, films=3) == 2
    assert seen == ["mbtree=1"] * 3 and encode.STABLE_X264 == usual == "mbtree=0"


def test_the_builders_encoder_gives_one_file(benchmark):
    assert benchmark.encodes(96, 2, tree=False, films=1) == 0
    assert benchmark._files(96, 0, 1) != benchmark._files(96, 1, 1)
