#!/usr/bin/env bash
# Checks style and types, then runs all tests; with arguments, only pytest with them.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/scripts/environment.sh"

cd "$repository"
export PATH=$environment/bin:$PATH
# Tests start several ranks at once: one thread each keeps them from fighting over the cores.
export OMP_NUM_THREADS=1
if (($# == 0)); then
    ruff check .
    ruff format --check .
    mypy
fi
exec pytest --durations=10 "$@"
