"""What the scheduler tells a rank and what a rank tells back; both travel as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field

from runner.contract.strategy import Strategy
from runner.contract.vocabulary import Cause, Device, Memory, Meter, Method, Phase, Verdict
from runner.contract.workload import Workload


@dataclass(frozen=True)
class Job:
    """One instance under one strategy. Paths are absolute; every rank of a gang gets the same.

    `network` is the original ONNX file (maybe .gz), `prepared` the converted one (see
    runner.engine.network.prepared), `timeout_s` counts from the start of the gang, and
    `counterexample` is where rank 0 writes a confirmed counterexample (gzip), `bounds` where it
    writes the bounds of an experiment (safetensors), and `progress` where it writes how branch and
    bound went (CSV). `memory_limit_bytes`: what a rank may allocate once it has joined its gang.
    `workload`: what branch and bound is to do instead of deciding. `work_bytes`: of the budget for
    what is at work at once (runner.engine.bounds.budget), None for what suits the device.
    `files`: a digest of network and property, where ranks read copies of their own; empty where
    they share.
    """

    network: str
    prepared: str
    property: str
    strategy: Strategy
    ranks: int
    timeout_s: float
    method: Method = Method.COMPLETE
    device: Device = Device.AUTO
    seed: int = 0
    memory_limit_bytes: int | None = None
    counterexample: str = ""
    bounds: str = ""
    progress: str = ""
    workload: Workload | None = None
    work_bytes: int | None = None
    files: str = ""


@dataclass(frozen=True)
class RankReport:
    """What one rank found and what it cost. Seconds and bytes, unrounded."""

    rank: int
    verdict: Verdict
    cause: Cause = Cause.NONE
    message: str = ""
    method: str = ""  # what decided ("attack", "ibp", "crown", …), else the last one tried
    lower_bound: float | None = None  # worst margin over cases and disjuncts; > 0 proves unsat
    counterexample: bool = False  # written and confirmed by ONNX Runtime
    device: str = "cpu"
    wall_s: float = 0.0
    cpu_s: float = 0.0
    phase_s: dict[Phase, float] = field(default_factory=dict)
    meter: Meter = Meter.NONE
    weight_bytes: int | None = None  # resting: after loading, before the attack
    peak_tensor_bytes: int = 0
    peak_bytes: dict[Memory, int] = field(default_factory=dict)  # of each kind, at its own peak
    at_peak_bytes: dict[Memory, int] = field(default_factory=dict)  # their sum is the peak
    peak_rss_bytes: int = 0  # above the start of the rank
    peak_gpu_allocated_bytes: int | None = None
    peak_gpu_reserved_bytes: int | None = None
    nvml_peak_bytes: int | None = None
    comm_bytes: int = 0  # sent by this rank
    comm_s: float = 0.0
    collectives: int = 0
    domains: int = 0  # sub-problems that branch and bound bounded
    rounds: int = 0
    domains_per_s: float = 0.0
    depth: int = 0  # splits above the deepest domain
