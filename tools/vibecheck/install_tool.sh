#!/usr/bin/env bash
# install_tool.sh v1: vibecheck in an environment of its own, in this folder.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../environment.sh"
make_environment 11 12
