"""What ranks run, as "module:function": the harness knows the verifier by these names alone."""

from __future__ import annotations

PREPARE = "runner.engine.programs.verify:prepare_target"
PREPARE_PROPERTY = "runner.engine.programs.fit:prepare_property_target"
VERIFY = "runner.engine.programs.verify:verify_target"
SUPPORTS = "runner.engine.programs.supports:supports_target"
PLAN = "runner.engine.programs.planned:plan_target"
FIT = "runner.engine.programs.fit:fit_target"
