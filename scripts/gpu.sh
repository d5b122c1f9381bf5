#!/usr/bin/env bash
# What a machine with a GPU is to show, in one command: tests there, memory, categories.
#
#   scripts/gpu.sh OUT                              all of it; tables and logs go to the folder OUT
#   scripts/gpu.sh OUT tests|memory|speed|categories...   these steps
#
# tests       those of the GPU, and those of strategies, soundness and verdicts, taken to it
# memory      `experiment memory` of baseline, fsdp, tp and sp at P=1, 2, 4: ranks share GPUs over gloo
# speed       the same bounds on the CPU and on the GPU, with several sizes of --work-memory
# categories  baseline on categories of VNN-COMP 2022 (VNNCOMP2022: their folder)
#
# PYTHON: a Python that has what requirements.lock names; otherwise .venv is made and used.
# WORKERS (default 4): tests side by side. WIDTHS (default "4096x8 8192x4") and WORK (--work-memory) of
# `memory`; CATEGORIES, LIMIT (instances of each) and TIMEOUT (seconds) of `categories`.
set -uo pipefail
if (($# == 0)) || [[ $1 == --help || $1 == -h ]]; then
    sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    exit
fi
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
mkdir -p "$1"
out=$(cd "$1" && pwd -P)
shift
(($#)) || set -- tests memory speed categories
if [[ -z ${PYTHON:-} ]]; then
    source "$repository/scripts/environment.sh"
    PYTHON=$environment/bin/python
fi
cd "$repository" || exit
export PYTHONPATH=$repository${PYTHONPATH:+:$PYTHONPATH} OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1
runner=("$PYTHON" -c "import sys; from runner.cli import main; sys.exit(main())")
data=${VNNCOMP2022:-$repository/../shared/vnncomp2022}
runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT

said() { # runs a command, keeps its output as OUT/NAME.log, and says how it ended
    local name=$1 code=0
    shift
    "$@" >"$out/$name.log" 2>&1 || code=$?
    echo "$name: exit code $code after $((SECONDS - began)) s" | tee -a "$out/summary.txt"
}

tests() {
    said tests env TEST_DEVICE=cuda "$PYTHON" -m pytest -vv --tb=short --durations=15 \
        -n "${WORKERS:-4}" --dist loadscope \
        tests/test_gpu.py tests/engine/layout tests/soundness tests/experiments \
        tests/engine/search/test_relu_split_strategies.py tests/engine/search/test_expected_verdicts.py
}

memory() {
    local size
    for size in ${WIDTHS:-4096x8 8192x4}; do
        said "memory-$size" "${runner[@]}" experiment memory --device cuda --ranks 1,2,4 \
            --strategies fsdp,tp,sp,fsdp+sp --width "${size%x*}" --depth "${size#*x}" \
            ${WORK:+--work-memory "$WORK"} --results "$runs" --run "memory-$size"
        cp "$runs/memory-$size/table.md" "$out/memory-$size.md"
    done
}

speed() {
    local device mebibytes
    for device in cpu cuda; do
        said "bounds-$device" "${runner[@]}" experiment scaling --device $device --ranks 1 \
            --strategies baseline --width 1024 --methods crown,alpha-crown \
            --results "$runs" --run "bounds-$device"
        cp "$runs/bounds-$device/table.md" "$out/bounds-$device.md"
    done
    for mebibytes in 32 256 2048 8192; do
        said "work-$mebibytes" "${runner[@]}" experiment search --device cuda --ranks 1 \
            --strategies baseline --work-memory $mebibytes --batch 4096 --rounds 5 \
            --results "$runs" --run "work-$mebibytes"
        cp "$runs/work-$mebibytes/table.md" "$out/work-$mebibytes.md"
    done
}

categories() {
    local name
    for name in ${CATEGORIES:-rl_benchmarks acasxu mnist_fc oval21 sri_resnet_a}; do
        said "run-$name" "${runner[@]}" run "$data/benchmarks/$name" --device cuda --ranks 1 \
            --strategies baseline --limit "${LIMIT:-20}" --timeout "${TIMEOUT:-30}" \
            --results "$runs" --run "$name"
        cp "$runs/$name/outcomes.csv" "$out/$name-outcomes.csv"
        cp "$runs/$name/report/strategies.md" "$out/$name.md"
    done
}

{
    "$PYTHON" -c 'import torch; print(torch.__version__, torch.cuda.get_device_name(0))'
    nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader
} >"$out/machine.txt" 2>&1
for step in "$@"; do
    began=$SECONDS
    "$step"
done
