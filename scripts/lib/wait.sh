# Failing and waiting, for scenarios and for jobs in the virtual machine. Sourced, not run.
# shellcheck shell=bash

fail() {
    echo "FAILED: $*"
    exit 1
}

# wait_until SECONDS COMMAND...: polls the command; status 1 if it never succeeded in that time, of a
# machine that has nothing else to do: a busy one gets four times as long.
wait_until() {
    local -i deadline=$((${EPOCHREALTIME/./} + $1 * 4000000))
    shift
    until "$@"; do
        ((${EPOCHREALTIME/./} < deadline)) || return 1
        sleep 0.05
    done
}

process_is_gone() {
    local state
    # A process that has ended but was not waited for is a zombie.
    state=$(awk '$1 == "State:" { print $2 }' "/proc/$1/status" 2>/dev/null) || return 0
    [[ $state == Z || -z $state ]]
}
