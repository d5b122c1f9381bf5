#!/usr/bin/env bash
# Checks style and types, then runs all tests.
#
#   ./run_tests.sh                 all of it
#   ./run_tests.sh --quick         under 2 minutes: no gangs, no large networks, no style and types
#   ./run_tests.sh --soundness     2,000 random questions whose answers are known exactly
#   ./run_tests.sh ARGUMENTS...    pytest with these
set -euo pipefail
if [[ ${1:-} == --help || ${1:-} == -h ]]; then
    sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit
fi
source "$(dirname "${BASH_SOURCE[0]}")/scripts/environment.sh"

cd "$repository"
export PATH=$environment/bin:$PATH
# Tests start several ranks at once: one thread each keeps them from fighting over the cores.
export OMP_NUM_THREADS=1
if (($# == 0)); then
    ruff check .
    ruff format --check .
    mypy
elif [[ $1 == --soundness ]]; then
    shift
    export SOUNDNESS_QUESTIONS=${SOUNDNESS_QUESTIONS:-2000}
    set -- tests/soundness "$@"
fi
exec pytest --durations=10 "$@"
