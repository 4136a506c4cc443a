import pytest

from bi_audio_dataset.licences import redistributable


@pytest.mark.parametrize(
    "name",
    ["CC0-1.0", "cc0", "CC-BY-4.0", "CC BY 3.0", "CC-BY-3.0-DE", "CC-BY-SA-4.0", "CC-BY-NC-4.0"]
    + ["CC-BY-NC-SA-3.0", "public domain", "PDDL-1.0", "CC-BY-4.0 AND CC0-1.0", "unknown OR CC0-1.0"],
)
def test_these_allow_copies(name):
    assert redistributable(name)


@pytest.mark.parametrize(
    "name",
    ["", "unknown", "CC-BY-ND-4.0", "CC-BY-NC-ND-4.0", "all rights reserved", "YouTube standard", "MIT-ish"]
    + ["CC-BY-4.0 AND unknown", "CC-BY-4.0 (but ask)", "not CC0-1.0", "CC BY 4.0 ND", "CC0-1.0 AND "],
)
def test_nothing_else_does(name):
    assert not redistributable(name)
