import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Reference media and goldens; tests that need them skip where the folder is absent."""
    folder = Path(os.environ.get("VISAUDIO_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip("no shared/ folder with reference media")
    return folder
