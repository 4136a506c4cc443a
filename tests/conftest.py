import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True)
def fresh_accelerate():
    """Accelerate keeps one state per process; each test ends without."""
    yield
    if "accelerate" in sys.modules:
        from accelerate.state import AcceleratorState, GradientState

        AcceleratorState._reset_state(True)
        GradientState._reset_state()


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Reference media and goldens; tests that need them skip where the folder is absent."""
    folder = Path(os.environ.get("VISAUDIO_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip("no shared/ folder with reference media")
    return folder


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A Hub on loopback and processes that ask it (hub_world.py)."""
    from hub_world import World

    world = World(tmp_path_factory.mktemp("world"))
    world.client("offline")  # it imports torch while the first tests run
    yield world
    world.close()
