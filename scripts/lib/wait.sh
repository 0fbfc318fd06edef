# Failing and waiting, for scenarios and for jobs in the virtual machine. Sourced, not run.
# shellcheck shell=bash

fail() {
    echo "FAILED: $*"
    exit 1
}

# wait_until SECONDS COMMAND...: polls the command; status 1 if it never succeeded in that time.
wait_until() {
    local -i deadline=$((${EPOCHREALTIME/./} + $1 * 1000000))
    shift
    until "$@"; do
        ((${EPOCHREALTIME/./} < deadline)) || return 1
        sleep 0.05
    done
}
