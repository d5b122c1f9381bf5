# shellcheck shell=bash
# Sourced by prepare_instance.sh and run_instance.sh: finds the Python of this checkout.
# Defines `competitor`, the command that both end in.

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
python=${VNNCOMP_RUNNER_PYTHON:-$repository/.venv/bin/python}
if [[ ! -x $python ]]; then
    echo "error: $python is missing; run vnncomp_scripts/install_tool.sh v1 first" >&2
    exit 2
fi

# Imports come from this checkout, and never from the folder where the script is called.
# shellcheck disable=SC2034 # whoever sources this uses it
competitor=("$python" -c 'import sys
sys.path[0] = sys.argv.pop(1)
from runner.cli.competing import main
sys.exit(main(sys.argv[1:]))' "$repository")
