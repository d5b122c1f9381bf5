"""Memory that is freed is there for the next tensors, without faults of its pages."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from runner.engine.heap import keep_freed_memory
if {kept}:
    assert keep_freed_memory()
def passes():
    for _ in range(50):
        held = [torch.ones(1_000_000) for _ in range(5)]
        del held
passes()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
passes()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*, kept: bool) -> int:
    """Of a process of its own, as the setting is one of the process; in one where all that is freed
    goes back, as otherwise it depends on what else lies in its heap.
    """
    done = subprocess.run(
        [sys.executable, "-c", FAULTS.format(kept=kept)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"},
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_pages_of_freed_tensors_are_not_faulted_again() -> None:
    pages = 50 * 5 * 4_000_000 // resource.getpagesize()
    assert faults(kept=True) < pages // 20 < faults(kept=False)
