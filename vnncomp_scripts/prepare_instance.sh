#!/usr/bin/env bash
# prepare_instance.sh v1 CATEGORY ONNX VNNLIB: converts the network for run_instance.sh, and starts
# a server that stays warm for it. Not 0 where the instance cannot be run, which standard error says.
# Options are variables of the environment; see docs/competitor.md.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
exec "${competitor[@]}" prepare "$@"
