"""vnncomp-runner: VNN-COMP benchmarks under parallel strategies, with per-rank records.

`verify(network, property, …)` answers one question; see `runner.run.single`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runner.run.single import Verified, verify

__all__ = ["Verified", "verify"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """The public names, imported when they are asked for: every module imports this package."""
    if name in __all__:
        from runner.run import single

        return getattr(single, name)
    raise AttributeError(f"module 'runner' has no attribute {name!r}")
