#!/usr/bin/env bash
# Runs VNN-COMP categories under several strategies and compares them: see --help.
# Without a category it runs the embedded ones that instances.csv chooses.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/scripts/environment.sh"

export VNNCOMP_RUNNER_DEFAULT=$repository/instances.csv
exec "$environment/bin/vnncomp-runner" run "$@"
