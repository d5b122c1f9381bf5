# shellcheck shell=bash
# Sourced by run_benchmark.sh and run_tests.sh: makes .venv from pyproject.toml and requirements.lock,
# and the wide network of the default run, once. Defines `repository` and `environment` (the path of
# .venv).

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
environment=$repository/.venv
meter=runner/engine/measure/allocator.cpp
# The path counts too: the scripts in .venv/bin hold it, so a moved folder needs a new .venv.
inputs=$({ echo "$repository" && cat "$repository"/{pyproject.toml,requirements.lock,$meter}; } | cksum)
stamp=$environment/.installed-${inputs// /-}

wide_network=$repository/benchmarks/random_wide/onnx/random_4x2048.onnx

is_ready() { is_installed && [[ -e $wide_network ]]; }

is_installed() { [[ -e $stamp && -x $environment/bin/python && -x $environment/bin/vnncomp-runner ]]; }

suitable_python() { # prints the first Python that can make the environment, or says why none can
    local check='import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))'
    local candidate answer tried=""
    for candidate in python3.13 python3.12 python3.11 python3; do
        command -v "$candidate" >/dev/null || continue
        # Run it: a name on the PATH may be a launcher with nothing behind it.
        if answer=$("$candidate" -c "$check" 2>&1); then
            echo "$candidate"
            return
        fi
        tried+="  $(command -v "$candidate"): ${answer:-$("$candidate" --version)}"$'\n'
    done
    cat >&2 <<EOF
No Python 3.11, 3.12 or 3.13 with the modules venv and ensurepip was found on the PATH.
Install one, and on Debian or Ubuntu its python3-venv package too. Tried:
${tried:-  python3.13, python3.12, python3.11, python3: no such command}
EOF
    return 1
}

install() {
    local python
    python=$(suitable_python)
    echo "Setting up .venv with $python: done once, takes about 3 minutes" >&2
    # No stamp at all: an installation was cut short, and what it left cannot be trusted. A link to
    # a Python that is gone would stay as it is.
    if ! compgen -G "$environment/.installed-*" >/dev/null || [[ ! -x $environment/bin/python ]]; then
        rm -rf "$environment"
    fi
    rm -f "$environment"/.installed-*
    "$python" -m venv "$environment"
    local pip=("$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps)
    "${pip[@]}" -r "$repository/requirements.lock"
    "${pip[@]}" --no-build-isolation --editable "$repository"
    "$environment/bin/python" -m runner.engine.programs.meter >&2 ||
        echo "Memory will be counted at every operator, which takes time; see vnncomp-runner doctor" >&2
    touch "$stamp"
    echo "Set up .venv in $SECONDS s" >&2
}

if ! is_ready; then
    # Two first starts at once: the second waits for the first, even for what it left running.
    exec 9<"$repository/pyproject.toml"
    if command -v flock >/dev/null; then flock 9; fi
    # Not `is_installed || install`: that would go on after an error inside of install.
    if ! is_installed; then install; fi
    if [[ ! -e $wide_network ]]; then
        "$environment/bin/python" "$repository/scripts/random_wide.py"
    fi
    exec 9<&-
fi
