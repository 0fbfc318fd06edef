# Small helpers shared by the scripts; sourced, not run.
# shellcheck shell=bash

REPD_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# What can be fetched or built again lives outside the repository.
REPD_CACHE=${REPD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/repd}
export REPD_ROOT REPD_CACHE

say() { printf '%s\n' "$*" >&2; }

die() {
    say "${0##*/}: $*"
    exit 1
}

# usage_error TEXT: for wrong arguments; the exit status is 2, as bash's own.
usage_error() {
    say "${0##*/}: $* (try --help)"
    exit 2
}

# print_help: the comment at the head of the script is its documentation.
print_help() {
    awk 'NR == 1 { next } !/^#/ { exit } { sub(/^# ?/, ""); print }' "$0"
}

as_root() {
    if [[ $EUID == 0 ]]; then "$@"; else sudo -n "$@"; fi
}

# apt_get ARG...: without questions, and patient when somebody else holds dpkg's lock.
apt_get() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -y -qq \
        -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@"
}

missing_packages() {
    local package
    for package in "$@"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] ||
            printf '%s\n' "$package"
    done
}

# need_packages REASON PACKAGE...: installs what is missing, once, and says so.
need_packages() {
    local reason=$1 missing
    shift
    mapfile -t missing < <(missing_packages "$@")
    [[ ${#missing[@]} -gt 0 ]] || return 0
    say "installing for $reason: ${missing[*]}"
    # The lists of a fresh machine are empty, those of an old one name files that are gone.
    apt_get install --no-install-recommends "${missing[@]}" >&2 2>/dev/null && return 0
    apt_get update >&2
    apt_get install --no-install-recommends "${missing[@]}" >&2 ||
        die "cannot install ${missing[*]} (needed for $reason)"
}
