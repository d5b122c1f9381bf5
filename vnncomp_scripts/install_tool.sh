#!/usr/bin/env bash
# install_tool.sh v1: makes .venv of this checkout, on a machine with Python 3.11 to 3.13.
set -euo pipefail
if [[ ${1:-} != v1 ]]; then
    echo "usage: install_tool.sh v1" >&2
    exit 2
fi
folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)

# A bare Ubuntu has a python3 that cannot make environments.
if ! python3 -c 'import ensurepip, venv' 2>/dev/null && command -v apt-get >/dev/null; then
    become_root=()
    if [[ $(id -u) -ne 0 ]]; then become_root=(sudo); fi
    "${become_root[@]}" apt-get update
    "${become_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y python3-venv
fi
# shellcheck source=../scripts/environment.sh
source "$folder/../scripts/environment.sh"
