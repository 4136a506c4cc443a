import sys
from pathlib import Path

# fake_clips.py, one folder up, serves the tests of captions too
sys.path.insert(0, str(Path(__file__).parents[1]))
