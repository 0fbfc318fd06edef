# The one node a of a job in the virtual machine, under a supervisor and with the kernel device that it
# attaches itself. Sourced, not run; needs $nodes and wait.sh.
# shellcheck shell=bash
# shellcheck disable=SC2154

engine() { cat "$nodes/a/r0/repd.pid" 2>/dev/null || true; }
supervisor() { cat "$nodes/a/r0/supervisor.pid" 2>/dev/null || true; }
log() { tail -n 30 "$nodes/a/r0/log"; }
is_attached() { [[ -e /sys/block/nbd0/pid ]]; }

engine_dies() {
    local process
    process=$(engine)
    kill -KILL "$process"
    wait_until 10 process_is_gone "$process" || fail "the engine does not die"
}

# gap: the engine is dead and stays so until gap_ends.
gap() {
    kill -STOP "$(supervisor)"
    engine_dies
}
gap_ends() { kill -CONT "$(supervisor)"; }
