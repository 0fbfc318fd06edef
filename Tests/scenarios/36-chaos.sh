#!/usr/bin/env bash
# A pair of repd under load while everything happens to it in random order: deaths of either node and
# of both, cuts, disconnects, full resyncs, detached disks, roles that change. Nothing acknowledged
# is lost, and both disks are equal in the end. REPD_SEED repeats a run's decisions, not its timing;
# REPD_ROUNDS makes it longer.
# timeout: 480
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib/scenario.sh"
. "$REPD_ROOT/scripts/lib/nodes.sh"

need_binary repd repctl
rounds=${REPD_ROUNDS:-40}
seed=${REPD_SEED:-$((EPOCHSECONDS % 32768))}
RANDOM=$seed
nodes=$scratch/nodes
mkdir "$nodes"
in_sync='cs:Connected ro:[A-Za-z/]* ds:UpToDate/UpToDate'
primary=a secondary=b writer='' trail=''

fail_with_trail() {
    echo "FAILED (seed $seed): $*"
    echo "what happened: $trail"
    for node in a b; do echo "--- $node" && node_log "$node" 25; done
    exit 1
}

cable() { echo "$1" >"$nodes/cable"; }

# pause MILLISECONDS: at most so long.
pause() {
    local -i milliseconds=$((RANDOM % $1))
    sleep "$((milliseconds / 1000)).$(printf %03d $((milliseconds % 1000)))"
}

start_writer() {
    "$python3" "$REPD_ROOT/scripts/lib/records.py" write "$(node_uri "$primary")" "$nodes/records" \
        --depth "$((1 + RANDOM % 16))" --rate 1500 --may-fail >>"$nodes/records.log" 2>&1 &
    writer=$!
    scenario_pids+=("$writer")
}

stop_writer() {
    kill -TERM "$writer" 2>/dev/null || true
    wait "$writer" || fail_with_trail "the writer: $(tail -n 3 "$nodes/records.log")"
    ! grep -q '[1-9][0-9]* failed' "$nodes/records.log" ||
        fail_with_trail "the client saw an error: $(tail -n 3 "$nodes/records.log")"
}

promote() {
    local output
    output=$(node_ctl "$1" primary 2>&1) || fail_with_trail "$1 is not promoted: $output"
    records verify "$(node_uri "$1")" "$nodes/records" >"$nodes/verify.log" ||
        fail_with_trail "on $1: $(cat "$nodes/verify.log")"
    # What the death of a server did to its clients is no longer of interest.
    : >"$nodes/records.log"
}

swap() {
    local other=$primary
    primary=$secondary
    secondary=$other
}

settle() {
    node_wait "$primary" "$in_sync" 40 || fail_with_trail "no sync"
    node_wait "$secondary" "$in_sync" 10 || fail_with_trail "no sync"
}

# Whether the Secondary has all: only then may it take over from a dead Primary.
can_take_over() { node_has_state "$primary" 'cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate'; }

up() { node_up "$1" >"$nodes/up.log" 2>&1 || fail_with_trail "up of $1: $(cat "$nodes/up.log")"; }

primary_dies() {
    local takes_over=no
    if can_take_over; then takes_over=yes; fi
    node_kill "$primary"
    wait "$writer" || fail_with_trail "the writer: $(tail -n 3 "$nodes/records.log")"
    if [[ $takes_over == yes ]]; then
        swap
        node_wait "$primary" 'cs:[A-Za-z]* ro:Secondary/Unknown' 10 ||
            fail_with_trail "the death was not noticed"
        promote "$primary"
        start_writer
        up "$secondary"
    else
        up "$primary"
        node_wait "$primary" 'ds:UpToDate' 10
        promote "$primary"
        start_writer
    fi
}

secondary_dies() {
    node_kill "$secondary"
    pause 1500
    up "$secondary"
}

both_die() {
    kill -KILL "${node_pids[a]}" "${node_pids[b]}"
    wait "${node_pids[a]}" "${node_pids[b]}" 2>/dev/null || true
    wait "$writer" || fail_with_trail "the writer: $(tail -n 3 "$nodes/records.log")"
    up "$secondary"
    up "$primary"
    node_wait "$primary" 'ds:UpToDate' 10
    promote "$primary"
    start_writer
}

link_fails() {
    cable stop
    pause 5000
    if [[ $((RANDOM % 2)) == 0 ]]; then
        cable reset
        sleep 0.3
    fi
    cable pass
}

link_resets() {
    cable reset
    pause 300
    cable pass
}

disconnected() {
    local node=$secondary
    [[ $((RANDOM % 2)) == 0 ]] || node=$primary
    # Refused where the peer is the only one with good data, or in a transient state.
    node_ctl "$node" disconnect 2>/dev/null || return 0
    pause 1000
    node_ctl "$node" connect
}

full_resync() { node_ctl "$secondary" invalidate 2>/dev/null || true; }

disk_is_detached() {
    node_ctl "$secondary" detach 2>/dev/null || return 0
    pause 1000
    node_ctl "$secondary" attach
}

roles_change() {
    settle
    stop_writer
    node_ctl "$primary" secondary
    same_data "${node_disks[a]}" "${node_disks[b]}" || fail_with_trail "the disks differ"
    swap
    promote "$primary"
    start_writer
}

events=(primary_dies primary_dies secondary_dies secondary_dies both_die link_fails link_fails
    link_resets disconnected full_resync full_resync disk_is_detached roles_change)

node_ports=([a]=$(free_port) [b]=$(free_port))
node_sees_peer_at=([a]=$(free_port) [b]=$(free_port))
cable pass
background "$python3" "$REPD_ROOT/scripts/lib/proxy.py" "$nodes/cable" \
    "${node_sees_peer_at[a]}:${node_ports[b]}" "${node_sees_peer_at[b]}:${node_ports[a]}" >/dev/null
nodes_rate='resync-rate 60M;'
nodes_configure C 48
make_equal_metadata "${node_disks[a]}"
make_equal_metadata "${node_disks[b]}"
up a
up b
node_wait a "$in_sync" 20
echo "$rounds events in random order, seed $seed"
node_primary a
records fill "$(node_uri a)" "$nodes/records" >/dev/null
: >"$nodes/records.log"
start_writer
for ((round = 1; round <= rounds; round++)); do
    pause 700
    event=${events[RANDOM % ${#events[@]}]}
    trail+=" $event"
    "$event" || fail_with_trail "$event"
    # Half of the time the next event finds them as they are.
    if [[ $((RANDOM % 2)) == 0 ]]; then settle; fi
    for node in a b; do node_is_alive "$node" || fail_with_trail "the daemon of $node has died"; done
done
settle
stop_writer
node_ctl "$primary" secondary
same_data "${node_disks[a]}" "${node_disks[b]}" || fail_with_trail "the disks differ in the end"
records verify "${node_disks[$secondary]}" "$nodes/records" || fail_with_trail "records are lost"
node_down a
node_down b
same_metadata "${node_disks[a]}" "${node_disks[b]}"
