#!/usr/bin/env bash
# Checks style and types, then runs all tests: side by side, then those that measure time.
#
#   ./run_tests.sh                 all of it
#   ./run_tests.sh --quick         the fast ones: no gangs, no large networks, no style and types
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
cores=$(nproc)
# Tests start several ranks at once: one thread each keeps them from fighting over the cores.
export OMP_NUM_THREADS=1
if [[ ${1:-} == --soundness ]]; then
    shift
    export SOUNDNESS_QUESTIONS=${SOUNDNESS_QUESTIONS:-2000}
    set -- tests/soundness "$@"
elif (($# > 0)) && [[ $* != --quick ]]; then
    exec pytest --durations=10 "$@"
fi
if (($# == 0)); then
    ruff check .
    ruff format --check .
    mypy
fi
status=0
# More workers than 4 would take memory and start ranks by the dozen.
pytest --durations=20 -m "not alone" -n $((cores < 4 ? cores : 4)) --dist loadscope "$@" || status=$?
if [[ ${1:-} != tests/soundness ]]; then
    pytest --durations=10 -m alone "$@" || status=$?
fi
exit $status
