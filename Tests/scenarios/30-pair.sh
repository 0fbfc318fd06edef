#!/usr/bin/env bash
# Two repd on one host: protocols, cuts, counted resyncs, and kill -9 of either side under load.
# timeout: 600
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib/scenario.sh"
. "$REPD_ROOT/scripts/lib/nodes.sh"
. "$REPD_ROOT/scripts/lib/fio.sh"

need_binary repd repctl
kills=${REPD_KILLS:-20}
nodes=$scratch/nodes
mkdir "$nodes"
in_sync='cs:Connected ro:[A-Za-z/]* ds:UpToDate/UpToDate'

# The cable: each node sees the other one at a port of the proxy.
cable() { echo "$1" >"$nodes/cable"; }

start_cable() {
    node_ports=([a]=$(free_port) [b]=$(free_port))
    node_sees_peer_at=([a]=$(free_port) [b]=$(free_port))
    cable pass
    background "$python3" "$REPD_ROOT/scripts/lib/proxy.py" "$nodes/cable" \
        "${node_sees_peer_at[a]}:${node_ports[b]}" "${node_sees_peer_at[b]}:${node_ports[a]}"
}

both_in_sync() {
    node_wait a "$in_sync" 40 || fail "no sync $1"
    node_wait b "$in_sync" 10 || fail "no sync $1"
}

same_disks() { same_data "${node_disks[a]}" "${node_disks[b]}" || fail "the disks differ $1"; }

# sent_and_received FROM KIB TEXT: what one says it has sent is what the other says it has received,
# since `count_from`, and is KIB.
count_from() { sent=$(node_value "$1" ns) received=$(node_value "$(node_peer "$1")" nr); }
sent_and_received() {
    local now_sent now_received
    now_sent=$(($(node_value "$1" ns) - sent))
    now_received=$(($(node_value "$(node_peer "$1")" nr) - received))
    [[ $now_sent == "$2" && $now_received == "$2" ]] ||
        fail "$3: $now_sent KiB sent, $now_received KiB received, not $2"
}

# cut_and_return PRIMARY HOW: cut while idle, write, reconnect: these blocks travel and no other.
cut_and_return() {
    local primary=$1 secondary blocks
    secondary=$(node_peer "$1")
    blocks=$((200 + RANDOM % 200))
    node_log_mark a
    node_log_mark b
    cable stop
    node_wait "$primary" 'cs:(WFConnection|Unconnected|NetworkFailure)' 10 || fail "cut not noticed"
    # shellcheck disable=SC2046  # two options, two words
    mapfile -t target < <(nbd_of "$primary")
    fio_blocks "$blocks" "${target[@]}"
    [[ $(node_value "$primary" oos) == $((blocks * 4)) ]] ||
        fail "$blocks blocks written alone, out of sync: $(node_value "$primary" oos) KiB"
    node_wait "$secondary" 'cs:(WFConnection|Unconnected|NetworkFailure)' 10 ||
        fail "cut not noticed by the Secondary"
    if [[ $2 == lost ]]; then
        cable reset
        sleep 0.4
    fi
    count_from "$primary"
    cable pass
    both_in_sync "after a cut"
    [[ $(node_began_resync "$primary") == "$blocks" ]] ||
        fail "resync of $(node_began_resync "$primary") blocks, written were $blocks"
    [[ $(node_began_resync "$secondary") == "$blocks" ]] ||
        fail "resync of $(node_began_resync "$secondary") blocks, written were $blocks"
    sent_and_received "$primary" $((blocks * 4)) "resync of $blocks blocks"
    same_disks "after a cut"
}

# cut_under_load PRIMARY: nothing acknowledged is lost, whatever was on its way.
cut_under_load() {
    local state=$nodes/records.cut writer
    records fill "$(node_uri "$1")" "$state" >/dev/null
    "$python3" "$REPD_ROOT/scripts/lib/records.py" write "$(node_uri "$1")" "$state" \
        --seconds 5 --rate 400 >"$nodes/records.log" 2>&1 &
    writer=$!
    sleep 1
    cable stop
    sleep 2.5
    cable reset
    sleep 0.4
    cable pass
    wait "$writer" || fail "the client saw an error: $(cat "$nodes/records.log")"
    both_in_sync "after a cut under load"
    records verify "$(node_uri "$1")" "$state" >/dev/null || fail "records are lost"
    node_ctl "$1" secondary
    same_disks "after a cut under load"
    records verify \
        "${node_disks[$(node_peer "$1")]}" "$state" >/dev/null || fail "the peer has no copy"
}

matrix() {
    local protocol node
    for protocol in C B A; do
        echo "protocol $protocol, each node as Primary: load with verify, cut, counted resync"
        node_down a
        node_down b
        nodes_configure "$protocol"
        node_up a
        node_up b
        both_in_sync "under $protocol"
        for node in a b; do
            node_primary "$node"
            node_expect "$node" " $protocol r"
            count_from "$node"
            # shellcheck disable=SC2046  # two options, two words
            mapfile -t target < <(nbd_of "$node")
            fio_verify "${target[@]}"
            node_ctl "$node" secondary
            sent_and_received "$node" 24576 "load under $protocol"
            same_disks "after load under $protocol"
            node_primary "$node"
            cut_and_return "$node" "$(if [[ $node == a ]]; then echo lost; else echo late; fi)"
            cut_under_load "$node"
        done
    done
}

# write_records NODE: until it is stopped; $writer is its pid.
write_records() {
    "$python3" "$REPD_ROOT/scripts/lib/records.py" write "$(node_uri "$1")" "$nodes/records" \
        --may-fail >>"$nodes/records.log" 2>&1 &
    writer=$!
    scenario_pids+=("$writer")
}

# come_back NODE: with its old disk, as Secondary, until both are equal.
come_back() {
    node_up "$1"
    both_in_sync "after a death"
}

random_moment() { sleep "0.$((100 + RANDOM % 700))"; }

fill_records() {
    node_primary "$1"
    records fill "$(node_uri "$1")" "$nodes/records" >/dev/null || fail "cannot fill the disk"
}

kill_primaries() {
    local primary=a secondary=b round
    fill_records a
    for ((round = 1; round <= $1; round++)); do
        node_primary "$primary"
        write_records "$primary"
        random_moment
        node_kill "$primary"
        wait "$writer" || fail "the writer failed: $(tail -n 3 "$nodes/records.log")"
        node_wait "$secondary" 'cs:[A-Za-z]* ro:Secondary/Unknown' 10 || fail "death not noticed"
        node_primary "$secondary"
        if [[ $2 == keeps ]]; then
            records verify "$(node_uri "$secondary")" \
                "$nodes/records" >"$nodes/verify.log" || fail "$(cat "$nodes/verify.log")"
        fi
        come_back "$primary"
        same_disks "in round $round"
        primary=$secondary
        secondary=$(node_peer "$primary")
    done
    node_ctl "$primary" secondary
    echo "  $(tail -n 1 "$nodes/verify.log" 2>/dev/null)"
}

kill_secondaries() {
    local round
    fill_records a
    write_records a
    for ((round = 1; round <= $1; round++)); do
        random_moment
        node_kill b
        node_up b
        node_wait b "$in_sync" 30 || fail "the Secondary does not come back"
        kill -0 "$writer" 2>/dev/null || fail "the writer ended: $(tail -n 3 "$nodes/records.log")"
    done
    kill -TERM "$writer"
    wait "$writer" || fail "the writer failed: $(tail -n 3 "$nodes/records.log")"
    both_in_sync "in the end"
    node_ctl a secondary
    same_disks "in the end"
    records verify "${node_disks[b]}" "$nodes/records" ||
        fail "the Secondary lacks records"
}

kill_both() {
    local round
    fill_records a
    for ((round = 1; round <= $1; round++)); do
        [[ $round == 1 ]] || node_primary a
        write_records a
        random_moment
        kill -KILL "${node_pids[a]}" "${node_pids[b]}"
        wait "${node_pids[a]}" "${node_pids[b]}" 2>/dev/null || true
        wait "$writer" || fail "the writer failed: $(tail -n 3 "$nodes/records.log")"
        node_up b
        come_back a
        same_disks "after both were killed"
        records verify "${node_disks[b]}" "$nodes/records" >"$nodes/verify.log" ||
            fail "$(cat "$nodes/verify.log")"
    done
}

use_protocol() {
    node_down a
    node_down b
    nodes_configure "$1"
    node_up a
    node_up b
    both_in_sync "under $1"
}

start_cable
nodes_configure C
node_create_md a
node_create_md b
echo "fresh disks connect and have nothing to sync from; a forced Primary fills the peer"
node_up a
node_up b
node_wait a 'cs:Connected ro:Secondary/Secondary ds:Inconsistent/Inconsistent' 20 || fail "no peer"
node_refuses a 17 '(-2) Need access to UpToDate data' primary
dd if=/dev/urandom of="${node_disks[a]}" bs=1M count=40 conv=notrunc status=none
node_primary a --force
node_wait a 'cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate' 60 || fail "no first sync"
node_wait b "$in_sync" 10 || fail "the peer did not notice the end"
[[ $(node_began_resync a) == 16374 ]] || fail "first sync of $(node_began_resync a) blocks"
node_ctl a secondary
same_disks "after the first sync"
matrix

use_protocol C
echo "protocol C: kill -9 of the Primary, $kills times: the promoted peer has every record"
kill_primaries "$kills" keeps
echo "protocol C: kill -9 of the Secondary, $kills times: the writer never notices"
kill_secondaries "$kills"
echo "protocol C: kill -9 of both, $((kills / 4)) times"
kill_both $((kills / 4))
use_protocol A
echo "protocol A: kill -9 of the Primary, $((kills / 4)) times: both are equal in the end"
kill_primaries $((kills / 4)) loses
node_down a
node_down b
same_disks "at rest"
same_metadata "${node_disks[a]}" "${node_disks[b]}"
