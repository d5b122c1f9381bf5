"""What the harness asks a rank, and what a rank answers; both travel as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field

from runner.contract.measurements import Measurements
from runner.contract.strategy import Strategy
from runner.contract.vocabulary import AttackKind, Cause, Device, EnginePart, Method, Verdict
from runner.contract.workload import Workload

# Of both; a harness and a verifier of different versions do not understand each other.
CONTRACT_VERSION = 3


@dataclass(frozen=True)
class Question:
    """One instance under one strategy; every rank of a gang gets the same."""

    network: str
    """Absolute path of the original ONNX file, maybe .gz."""
    prepared: str
    """Absolute path of the converted network (runner.engine.network.prepared)."""
    property: str
    """Absolute path of the VNN-LIB file, maybe .gz."""
    strategy: Strategy
    """How the work is laid out over the ranks."""
    ranks: int
    """How many ranks there are; a gang of another size is refused."""
    timeout_s: float
    """From the start of the gang."""
    method: Method = Method.COMPLETE
    """How far to go."""
    attack: AttackKind = AttackKind.PGD
    """How counterexamples are searched."""
    device: Device = Device.AUTO
    """Where to compute."""
    seed: int = 0
    """Of everything random: the same seed, the same bits."""
    memory_limit_bytes: int | None = None
    """What a rank may allocate once it has joined its gang; None for no limit."""
    counterexample: str = ""
    """Where rank 0 writes a confirmed counterexample (gzip); empty for nowhere."""
    bounds: str = ""
    """Where rank 0 writes the bounds of an experiment (safetensors); empty for nowhere."""
    progress: str = ""
    """Where rank 0 writes how branch and bound went (CSV); empty for nowhere."""
    workload: Workload | None = None
    """What branch and bound is to do instead of deciding."""
    work_bytes: int | None = None
    """The budget for what is at work at once (runner.engine.bounds.budget); None for what suits
    the device."""
    files: str = ""
    """A digest of network and property where ranks read copies of their own; empty where they
    share."""
    fitted: str = ""
    """Absolute path of the property as preparation read it (runner.problem.property.fitted); empty
    where ranks are to read `property` themselves."""
    without: frozenset[EnginePart] = frozenset()
    """What is not to be tried, in an experiment; the bounds of auto_LiRPA have no parts."""
    version: int = CONTRACT_VERSION
    """Of the contract that it was made under."""


@dataclass(frozen=True)
class Report:
    """What one rank found, and what that cost."""

    rank: int
    """Which rank, from 0."""
    verdict: Verdict
    """What it found."""
    cause: Cause = Cause.NONE
    """Why it is neither `sat` nor `unsat`."""
    message: str = ""
    """The cause in words, with what would mend it."""
    method: str = ""
    """What decided ("attack", "ibp", "crown", …), else what was tried last."""
    lower_bound: float | None = None
    """The worst margin over cases and disjuncts: above 0, it proves `unsat`."""
    counterexample: bool = False
    """Whether there is one that ONNX Runtime confirms, and it was written."""
    measured: Measurements = field(default_factory=Measurements)
    """What it cost."""
    version: int = CONTRACT_VERSION
    """Of the contract that it was made under."""
