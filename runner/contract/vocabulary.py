"""The closed sets of words that files, tables and messages use. Imports nothing of the project."""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class Verdict(StrEnum):
    """What is said of one instance; `sat` means that a counterexample exists."""

    SAT = "sat"
    UNSAT = "unsat"
    UNKNOWN = "unknown"
    TIMEOUT = "timeout"
    ERROR = "error"


class Cause(StrEnum):
    """Why a verdict is neither `sat` nor `unsat`."""

    NONE = ""
    INCOMPLETE = "incomplete"  # the bounds asked for were computed and did not decide
    WITHIN_ROUNDING = "within_rounding"  # ONNX Runtime may overturn what real arithmetic says
    FIXED_WORKLOAD = "fixed_workload"  # the search was to do so much work, not to decide
    UNDECIDED = "undecided"  # another verifier says that it does not know
    DEADLINE = "deadline"  # the ranks, or another verifier, stopped by themselves, in time
    KILLED_AT_DEADLINE = "killed_at_deadline"  # what ran did not stop and was killed
    LATE_ANSWER = "late_answer"  # an answer came after the timeout
    RANK_STOPPED = "rank_stopped"  # a rank was suspended (SIGSTOP) until the deadline
    RANK_DIED = "rank_died"
    GANG_MISMATCH = "gang_mismatch"  # the question is for other ranks, or they compute unlike
    OUT_OF_MEMORY = "out_of_memory"
    DISK_FULL = "disk_full"  # ends the run and is not recorded: resumed, it starts there
    MISSING_FILE = "missing_file"
    MALFORMED_INSTANCE = "malformed_instance"
    MALFORMED_PROPERTY = "malformed_property"
    MALFORMED_NETWORK = "malformed_network"
    UNSUPPORTED_INSTANCE = "unsupported_instance"
    UNSUPPORTED_PROPERTY = "unsupported_property"
    UNSUPPORTED_OPERATOR = "unsupported_operator"
    SHAPE_MISMATCH = "shape_mismatch"  # the property does not fit the network
    REPLAY_MISMATCH = "replay_mismatch"  # the loaded network differs from ONNX Runtime
    INVALID_COUNTEREXAMPLE = "invalid_counterexample"
    OUTSIDE_BOX = "outside_box"  # a counterexample that lies in the box only as float32 rounds
    PREPARE_FAILED = "prepare_failed"  # another verifier's preparation ended with an error
    VERIFIER_FAILED = "verifier_failed"  # another verifier ended with an error, or said so
    UNREADABLE_ANSWER = "unreadable_answer"  # another verifier's answer is none
    INTERNAL_ERROR = "internal_error"


class Method(StrEnum):
    """How far to go: bound propagation, from cheapest to tightest, then branch and bound."""

    IBP = "ibp"
    CROWN = "crown"
    ALPHA_CROWN = "alpha-crown"
    COMPLETE = "complete"  # decides, given time


class AttackKind(StrEnum):
    """How counterexamples are searched where bounds leave something open."""

    PGD = "pgd"  # down gradients alone
    INTERVAL = "interval"  # and along those of bounds over small boxes, between descents


class EnginePart(StrEnum):
    """What can be left out of a verification, to see what it buys; each has a docstring. Without
    any of them less is tried, and what is said still holds.
    """

    def __new__(cls, value: str, does: str) -> Self:
        member = str.__new__(cls, value)
        member._value_ = value
        member.__doc__ = does
        return member

    FORWARD = "forward", "forms: linear bounds of neurons from the free inputs on, before rows"
    EARLY = (
        "early-specs",
        "a bound of the specs before rows that take long, and rows for what they see",
    )
    ALPHA = "alpha", "α-CROWN before branch and bound"
    PARAMETERS = "parameters", "of α, the lines of what is no ReLU"
    BENT = "bent-splits", "splits of neurons where a network bends otherwise than by ReLUs"
    CUTS = "cuts", "several ways to choose the input that a box is halved at, not the first alone"
    NEAR = "near-alpha", "α on boxes of an input split that are near their threshold"
    BOX_ATTACK = "box-attack", "attacks from the open boxes of an input split"
    WHOLE = (
        "whole-points",
        "all points of boxes that few inputs span, over whole numbers, and all cells of step"
        " functions",
    )
    PLANE_SPLITS = (
        "plane-splits",
        "boxes halved under planes above ReLUs, where no ReLU stands behind another",
    )
    CLIPS = "clips", "bounds of neurons in the half spaces that neuron splits leave open"
    CONFINED = (
        "confined-neurons",
        "bounds of neurons in sub-domains, by their splits and where their rows are unsafe",
    )
    PROMISES = (
        "promises",
        "splits of the ReLU whose children promise most, instead of the relaxation that costs most",
    )
    PLANES = "planes", "planes over the box above ReLUs, besides triangles, in neuron splits"
    TREES = "neuron-trees", "branch and bound of single neurons, where neuron splits stall"
    LEAVES = "leaf-lp", "a linear program where all ReLUs are split"
    EXACT = "exact-ties", "rational arithmetic on strict and tied properties of small networks"
    MIXES = "mixes", "mixes of the rows of a conjunction, in input splits"
    SHRUNK = "shrunk-boxes", "boxes of an input split cut to what bounds of its rows leave open"
    FOLDED = "folded", "networks of the open ReLUs alone, for boxes of a large network"
    CORNERS = (
        "corner-planes",
        "planes above ReLUs at corners, for boxes over their open ReLUs alone",
    )
    TOGETHER = "together", "many boxes of a property bounded, and halved, at once"


BOUNDS = (Method.IBP, Method.CROWN, Method.ALPHA_CROWN)


class Phase(StrEnum):
    """What a rank spends its time on; `load` covers everything before the attack."""

    LOAD = "load"
    ATTACK = "attack"
    INCOMPLETE = "incomplete"
    COMPLETE = "complete"


class Memory(StrEnum):
    """What a live tensor is for."""

    WEIGHTS = "weight"
    A = "a"
    ALPHA = "alpha"
    BETA = "beta"
    BOUNDS = "bounds"
    OTHER = "other"


class Meter(StrEnum):
    """How peak tensor bytes were measured."""

    CUDA = "cuda"  # the CUDA caching allocator
    ALLOCATOR = "allocator"  # torch's allocator of CPU memory, with an extension that counts
    DISPATCH = "dispatch"  # storages followed by a torch dispatch mode (CPU, without a compiler)
    NONE = "none"  # not measured (`null`)


class On(StrEnum):
    """Where the shards of a run go; without one, a run is not cut."""

    LOCAL = "local"  # side by side on this machine
    SLURM = "slurm"
    RAY = "ray"


class Device(StrEnum):
    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
