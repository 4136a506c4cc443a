import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for fakes.py


@pytest.fixture(autouse=True)
def fresh_accelerate():
    """Accelerate keeps one state per process; each test starts without."""
    from accelerate.state import AcceleratorState, GradientState

    yield
    AcceleratorState._reset_state(True)
    GradientState._reset_state()
