# What every scenario needs (see docs/development.md). Sourced first by Tests/scenarios/*.sh:
#
#     set -euo pipefail
#     . "$(dirname "$0")/../../scripts/lib/scenario.sh"
#
# Gives $REPD_ROOT, $REPD_BIN, an empty directory $scratch that goes away in the end, and the
# functions below. Processes started with `background` are ended by their pids when the scenario
# ends, however it ends.
# shellcheck shell=bash

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
# shellcheck source=scripts/lib/wait.sh
. "$(dirname "${BASH_SOURCE[0]}")/wait.sh"

REPD_BIN=${REPD_BIN:-$REPD_ROOT/.build/release}
export REPD_BIN
scratch=$(mktemp -d "${TMPDIR:-/tmp}/repd-scenario.XXXXXX")
scenario_pids=()

# background COMMAND...: starts it; its pid is then $background_pid.
background() {
    "$@" &
    background_pid=$!
    scenario_pids+=("$background_pid")
}

# end_process PID [SIGNAL]: and waits until it is gone; no error if it is already.
end_process() {
    kill -s "${2:-TERM}" "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
}

# need_binary NAME...: of this package, built for release.
need_binary() {
    local name
    for name in "$@"; do
        [[ -x $REPD_BIN/$name ]] || fail "no $REPD_BIN/$name: build it, or set REPD_BIN"
    done
}

# free_port: prints a TCP port of 127.0.0.1 that nobody uses at this moment.
free_port() {
    /usr/bin/python3 -c '
import socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1])'
}

# vm ...: scripts/vm, in the machine's exit status too.
vm() { "$REPD_ROOT/scripts/vm" "$@"; }

scenario_clean_up() {
    local pid
    for pid in "${scenario_pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${scenario_pids[@]}"; do
        # What does not end by itself is ended.
        if ! wait_until 5 process_is_gone "$pid"; then kill -KILL "$pid" 2>/dev/null || true; fi
    done
    rm -rf "$scratch"
}

trap scenario_clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
