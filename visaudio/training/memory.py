"""Keep freed memory in the process: on a CPU, training allocates and frees the same large tensors every step.

glibc gives blocks of 32 MB and more back to the system at once and asks for them again, page by page zeroed:
half of a step's time in the Synchformer stage on two cores (1.8 against 2.8 s a step, issue 2).
"""

from __future__ import annotations

import ctypes
import sys

# <malloc.h>
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Ask the C library not to return freed blocks; whether it understood. Only glibc does, so only Linux."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all(
        mallopt(option, value) == 1
        for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 256 << 20))
    )
