#!/usr/bin/env bash
# run_instance.sh v1 CATEGORY ONNX VNNLIB RESULTS TIMEOUT: the verdict is the first line of RESULTS,
# and a counterexample follows `sat`. It is written before TIMEOUT seconds are over.
# Options are variables of the environment; see docs/competitor.md.
started=$EPOCHREALTIME
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
exec "${competitor[@]}" run "$started" "$@"
