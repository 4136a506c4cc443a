"""Its presence puts this folder on the path, so that tests below it find the helpers beside it."""

import pytest

from bi_audio_dataset import card_plots, clip, executors, rebuild
from bi_audio_dataset.build_config import BuildConfig


@pytest.fixture(scope="session")
def head():
    """The spherical head and its filters, which take a builder longest to make."""
    hrirs = clip.load_hrirs(BuildConfig())
    return hrirs, clip.BinauralDecoder(hrirs)


@pytest.fixture
def in_this_process(monkeypatch, head):
    """What the command line builds is built here, with one head for all: starting workers takes seconds."""
    hrirs, decoder = head
    load, make = clip.load_hrirs, clip.BinauralDecoder
    monkeypatch.setattr(clip, "load_hrirs", lambda config: load(config) if config.sofa else hrirs)
    monkeypatch.setattr(clip, "BinauralDecoder", lambda given: decoder if given is hrirs else make(given))
    for module in (executors, rebuild):
        monkeypatch.setattr(module, "choose", lambda *_: executors.Inline())


@pytest.fixture(scope="module")
def without_plots():
    """Cards without their plots: matplotlib would take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(card_plots, "draw", lambda *_: [])
        yield


@pytest.fixture
def films(tmp_path):
    """A folder that holds one short recording."""
    from test_main import write_recording

    folder = tmp_path / "films"
    folder.mkdir()
    write_recording(folder)
    return folder
