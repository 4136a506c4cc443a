"""Freed memory stays: a large block that is freed and asked for again lies where it lay."""

import subprocess
import sys

import pytest

SCRIPT = """
import ctypes
from visaudio.training.memory import keep_freed_memory
kept = keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
block = libc.malloc(200 << 20)
ctypes.memset(block, 7, 200 << 20)
libc.free(block)
resident = int(open("/proc/self/statm").read().split()[1]) * 4096
print(int(kept), int(resident > 200 << 20))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc has mallopt")
def test_a_freed_block_stays_resident():
    said = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout
    kept, resident = said.split()
    if kept == "0":
        pytest.skip("this C library has no mallopt")
    assert resident == "1"
