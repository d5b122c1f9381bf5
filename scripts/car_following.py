"""A controller with five inputs: follow a car, by the rule of the stopping distance.

Outputs are the scores of three advisories; the highest counts. Properties are VNN-LIB 2.0.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

# Inputs in the network's order, with their range; the network gets them scaled to [0, 1].
RANGES: Mapping[str, tuple[float, float]] = {
    "gap": (0.0, 100.0),  # m, to the car ahead
    "speed": (0.0, 40.0),  # m/s
    "lead_speed": (0.0, 40.0),  # m/s
    "lead_acceleration": (-8.0, 3.0),  # m/s²
    "grip": (0.3, 1.0),  # of the road, 1 is dry
}
BRAKE, HOLD, ACCELERATE = range(3)
DECELERATION = 8.0  # m/s², of a car on a dry road

Box = Mapping[str, tuple[float, float]]


def situations(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random inputs [number, 5] in [0, 1], and the advisory of the rule for each [number]."""
    inputs = torch.rand(number, len(RANGES))
    gap, speed, lead_speed, lead_acceleration, grip = (
        low + (high - low) * inputs[:, i] for i, (low, high) in enumerate(RANGES.values())
    )
    lead_speed = (lead_speed + lead_acceleration).clamp(min=0.0)
    stopping = speed + speed**2 / (2 * DECELERATION * grip)
    needed = 5.0 + stopping - lead_speed**2 / (2 * DECELERATION)
    advisory = torch.full((number,), HOLD)
    advisory[gap < needed] = BRAKE
    advisory[gap > 1.5 * needed.clamp(min=0.0) + 10.0] = ACCELERATE
    return inputs, advisory


def highest(advisory: int) -> str:
    """The formula that `advisory` has the highest score."""
    others = [i for i in (BRAKE, HOLD, ACCELERATE) if i != advisory]
    return f"(and {' '.join(f'(>= Y[0,{advisory}] Y[0,{i}])' for i in others)})"


def not_highest(advisory: int) -> str:
    """The formula that another score reaches that of `advisory`."""
    others = [i for i in (BRAKE, HOLD, ACCELERATE) if i != advisory]
    return f"(or {' '.join(f'(>= Y[0,{i}] Y[0,{advisory}])' for i in others)})"


def property_text(*unsafe: tuple[Box, str]) -> str:
    """VNN-LIB 2.0: unsafe if for one of the pairs the input is in the box and the formula holds.

    A box gives some inputs in their own units; the others have their whole range.
    """
    cases = [f"(and {_bounds(box)} {formula})" for box, formula in unsafe]
    indented = "\n  ".join(cases)
    assertion = indented if len(cases) == 1 else f"(or\n  {indented})"
    return f"""(vnnlib-version <2.0>)

(declare-network controller
  (declare-input X float32 [1,{len(RANGES)}])
  (declare-output Y float32 [1,3])
)

(assert {assertion})
"""


def _bounds(box: Box) -> str:
    terms = []
    for i, (name, (low, high)) in enumerate(RANGES.items()):
        lower, upper = ((value - low) / (high - low) for value in box.get(name, (low, high)))
        terms.append(f"(>= X[0,{i}] {lower:.6f}) (<= X[0,{i}] {upper:.6f})")
    return " ".join(terms)


CLOSE: Box = {"gap": (0, 10), "speed": (20, 40), "lead_speed": (0, 10)}
FREE: Box = {"gap": (80, 100), "speed": (0, 10), "lead_speed": (10, 40)}
SLIPPERY: Box = {"gap": (0, 20), "speed": (20, 40), "lead_speed": (0, 15), "grip": (0.3, 0.5)}
STEADY: Box = {"gap": (40, 50), "speed": (15, 20), "lead_speed": (20, 25), "grip": (0.8, 1.0)}
BROAD: Box = {"gap": (0, 30), "speed": (15, 40), "lead_speed": (0, 15)}

PROPERTIES: Mapping[str, str] = {
    "close_brakes": property_text((CLOSE, not_highest(BRAKE))),
    "free_never_brakes": property_text((FREE, highest(BRAKE))),
    "close_or_slippery": property_text(
        (CLOSE, highest(ACCELERATE)), (SLIPPERY, not_highest(BRAKE))
    ),
    "steady_never_brakes": property_text((STEADY, highest(BRAKE))),
    "broad_never_accelerates": property_text((BROAD, highest(ACCELERATE))),
    "broad_brakes": property_text((BROAD, not_highest(BRAKE))),
}
