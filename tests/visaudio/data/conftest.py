import pytest
from small_parts import extract, make_parts

from visaudio.data.features import Parts


@pytest.fixture(scope="session")
def parts() -> Parts:
    return make_parts()


@pytest.fixture(scope="session")
def folder(fake_biaudio, tmp_path_factory, parts):
    """Features of the fake dataset: four clips in as many shards; not to be changed."""
    return extract(fake_biaudio, tmp_path_factory.mktemp("features"), parts)
