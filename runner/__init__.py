"""vnncomp-runner: VNN-COMP benchmarks under parallel strategies, with per-rank records."""

__version__ = "0.1.0"
