#!/usr/bin/env bash
# Checks style and types, then runs the tests: side by side, then those that measure time.
#
#   ./run_tests.sh                 what every change must pass
#   ./run_tests.sh --quick         the fast ones: no gangs, no large networks, no style and types
#   ./run_tests.sh --exhaustive    every form, size and count too, and all random examples: each night
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
# Every process that tests start would compile this program anew.
unset PYTHONDONTWRITEBYTECODE
if [[ ${1:-} == --soundness ]]; then
    shift
    export SOUNDNESS_QUESTIONS=${SOUNDNESS_QUESTIONS:-2000}
    set -- tests/soundness --exhaustive "$@"
elif (($# > 0)) && [[ $* != --quick && $* != --exhaustive ]]; then
    exec pytest --durations=10 "$@"
fi
if [[ ${1:-} != --quick && ${1:-} != tests/soundness ]]; then
    ruff check .
    ruff format --check .
    mypy
fi
status=0
# More workers than 4 would take memory and start ranks by the dozen. In the order of tests/conftest.py:
# what takes longest begins first.
side_by_side=(-n $((cores < 4 ? cores : 4)) --dist loadscope --no-loadscope-reorder)
pytest --durations=20 -m "not alone" "${side_by_side[@]}" "$@" || status=$?
if [[ ${1:-} != --quick && ${1:-} != tests/soundness ]]; then
    pytest --durations=10 -m alone "$@" || status=$?
fi
exit $status
