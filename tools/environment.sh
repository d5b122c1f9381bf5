# shellcheck shell=bash
# Sourced by each install_tool.sh: make_environment makes .venv in the tool's own folder, once.

here=$(cd "$(dirname "${BASH_SOURCE[1]}")" && pwd -P)

make_environment() { # OLDEST and NEWEST minor version of Python 3; installs requirements.txt
    local stamp="$here/.venv/.installed" wanted python
    wanted=$(cksum <"$here/requirements.txt")
    if [[ -e $stamp && $(cat "$stamp") == "$wanted" ]]; then
        return
    fi
    python=$(suitable_python "$1" "$2")
    rm -rf "$here/.venv"
    "$python" -m venv "$here/.venv"
    "$here/.venv/bin/python" -m pip install --disable-pip-version-check \
        -r "$here/requirements.txt"
    echo "$wanted" >"$stamp"
}

suitable_python() { # prints the newest one that will do
    local minor candidate
    for ((minor = $2; minor >= $1; minor--)); do
        candidate=python3.$minor
        # Run it: a name on the PATH may be a launcher with nothing behind it.
        if "$candidate" -c 'import venv, ensurepip' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "No Python 3.$1 to 3.$2 with the modules venv and ensurepip on the PATH; install one" >&2
    return 1
}
