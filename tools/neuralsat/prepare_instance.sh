#!/usr/bin/env bash
# prepare_instance.sh v1 CATEGORY ONNX VNNLIB: there is nothing to prepare but to find the files.
set -euo pipefail
for file in "$3" "$4"; do
    [[ -r $file ]] || { echo "$file cannot be read" >&2; exit 1; }
done
