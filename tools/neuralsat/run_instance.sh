#!/usr/bin/env bash
# run_instance.sh v1 CATEGORY ONNX VNNLIB RESULTS TIMEOUT
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
python=$here/.venv/bin/python
# The package has no command: its program is a module that imports its siblings.
program=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/src/main.py
exec "$python" "$program" --net "$3" --spec "$4" --result_file "$5" --timeout "$6" --export_cex
