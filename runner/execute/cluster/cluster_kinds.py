"""Clusters by name. A new one: a module beside this, and its line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from runner.contract.vocabulary import On
from runner.execute.cluster.by_ray import Ray
from runner.execute.cluster.by_submitit import Local, Slurm
from runner.execute.cluster.cluster import Cluster
from runner.execute.cluster.placement import Placement

# Each keeps files of its own in the folder. Raises UsageError where it cannot be used here.
CLUSTERS: Mapping[On, Callable[[Path, Placement], Cluster]] = {
    On.LOCAL: Local,
    On.SLURM: Slurm,
    On.RAY: Ray,
}
