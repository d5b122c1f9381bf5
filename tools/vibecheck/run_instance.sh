#!/usr/bin/env bash
# run_instance.sh v1 CATEGORY ONNX VNNLIB RESULTS TIMEOUT
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
"$here/.venv/bin/vibecheck" --net "$3" --spec "$4" --results-file "$5" --timeout "$6"
code=$?
# Its exit code tells the verdict (1: sat), which the results file does too.
[[ -s $5 ]] || exit "$code"
