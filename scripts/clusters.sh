#!/usr/bin/env bash
# Installs what the tests of clusters need: Ray into .venv, and as root on a Debian, SLURM and munge.
#
# `.ci/run` calls it and no other command does. What cannot be installed is said, and its tests are
# skipped.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

ray_pins=$repository/requirements-ray.lock

have() {
    local name
    for name in "$@"; do command -v "$name" >/dev/null || return 1; done
}

say() { echo "clusters: $*" >&2; }

apt() { # no question, no daemon started, and no wait without end, for a lock or a mirror
    DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 timeout --foreground 100 \
        apt-get -qq -o DPkg::Lock::Timeout=30 -o Acquire::Retries=2 "$@" >/dev/null
}

install_slurm() {
    if have slurmctld slurmd sbatch munged mungekey; then return; fi
    if ! have apt-get; then
        say "no SLURM here, and no apt-get that could install it; its tests are skipped"
    elif [[ $(id -u) != 0 ]]; then
        say "no SLURM here, and only root can install slurm-wlm and munge; its tests are skipped"
    else
        say "installing slurm-wlm and munge"
        local packages=(--yes --no-install-recommends slurm-wlm munge)
        # What is slow is fetched first: a limit that strikes while dpkg works would leave a mess.
        if ! { apt update && apt install --download-only "${packages[@]}" &&
            apt install "${packages[@]}"; }; then
            say "SLURM cannot be installed, see above; its tests are skipped"
        fi
    fi
}

install_ray() {
    local stamp
    stamp=$environment/.with-ray-$(cksum <"$ray_pins" | tr ' ' -)
    if [[ -e $stamp ]]; then return; fi
    say "installing Ray"
    rm -f "$environment"/.with-ray-*
    local pip=("$environment/bin/python" -m pip --quiet --disable-pip-version-check)
    if timeout --foreground 180 "${pip[@]}" install --no-deps -r "$ray_pins"; then
        touch "$stamp"
    else
        say "Ray cannot be installed, see above; its tests are skipped"
        "${pip[@]}" uninstall --yes ray || true
    fi
}

exec 9<"$ray_pins"
if have flock; then flock 9; fi
install_slurm
install_ray
