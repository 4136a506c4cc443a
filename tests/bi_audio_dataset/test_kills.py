"""kill -9 at random moments of builds with real media. At each single write, without media: test_finalize.py;
of a pool's parent and of its workers: test_build.py, test_executors.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from quick_maker import digests

from bi_audio_dataset.processes import ONE_THREAD


@pytest.mark.slow
def test_killed_at_random_moments_and_in_shards_it_ends_with_the_same_bytes(tmp_path):
    here = Path(__file__).parent
    environment = {
        **os.environ,
        **ONE_THREAD,
        "PYTHONPATH": os.pathsep.join([str(here), str(here.parents[1])]),
    }
    done = subprocess.run(
        [sys.executable, str(here / "kills.py"), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["whole"], found["killed"]) == (0, 0), done.stderr
    assert found["random"] == 10 and found["in_shard"] == 2, found
    # all along the way
    assert len(set(found["parts"])) >= 3 and found["parts"] == sorted(found["parts"]), found
    whole = digests(tmp_path / "whole")
    assert sum(name.startswith("data/") for name in whole) == 4
    assert digests(tmp_path / "killed") == whole
