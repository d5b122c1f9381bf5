"""What the C library does with memory that tensors leave: by default it goes back to the kernel,
and each page of the next tensor is a fault again.
"""

from __future__ import annotations

import ctypes

# Of mallopt(3), as in glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# Blocks from this size on are mapped by themselves, the most that glibc takes; what is freed of
# smaller ones is kept up to so much.
MAPPED_BYTES, KEPT_BYTES = 32 * 1024 * 1024, 256 * 1024 * 1024


def keep_freed_memory() -> bool:
    """For the tensors that come next, in this process; False where the C library knows no such
    setting. A pass over many boxes makes and frees tensors of some megabytes all the time.
    """
    tune = getattr(ctypes.CDLL(None), "mallopt", None)
    if tune is None:
        return False
    settings = ((_M_MMAP_THRESHOLD, MAPPED_BYTES), (_M_TRIM_THRESHOLD, KEPT_BYTES))
    done = [bool(tune(name, size)) for name, size in settings]
    return all(done)
