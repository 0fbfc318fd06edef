#!/usr/bin/env bash
# Both nodes of a pair of repd were Primary while apart: neither overwrites the other by itself.
# timeout: 240
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib/scenario.sh"
. "$REPD_ROOT/scripts/lib/nodes.sh"

need_binary repd repctl
nodes=$scratch/nodes
in_sync='cs:Connected ro:[A-Za-z/]* ds:UpToDate/UpToDate'

# split: a writes blocks 0-99, b 50-149, each alone.
split() {
    node_ctl a disconnect
    node_ctl b disconnect
    node_primary a
    node_primary b
    records fill "$(node_uri a)" "$nodes/records.a" --first 0 --blocks 100 >/dev/null
    records fill "$(node_uri b)" "$nodes/records.b" --first 50 --blocks 100 >/dev/null
}

# meet: both connect, and both refuse.
meet() {
    local node
    node_log_mark a
    node_log_mark b
    node_ctl a connect
    node_ctl b connect
    for node in a b; do
        wait_until 20 log_has "$node" 'split brain detected' ||
            fail "$node does not notice: $(node_log "$node")"
        node_wait "$node" 'cs:StandAlone .*ds:UpToDate/DUnknown' 10
        log_has "$node" 'rule 90.*100 blocks of 4 KiB changed here, 100 at the peer' ||
            fail "$node does not say what is at stake: $(node_log "$node")"
        log_has "$node" 'discard-my-data' || fail "$node does not name the way out"
    done
}

log_has() { [[ -n $(node_log_since "$1" "$2") ]]; }

# resolve LOSER WINNER: the winner stays Primary, its disk is not changed.
resolve() {
    local loser=$1 winner=$2
    node_refuses "$loser" 10 '(123) --discard-my-data not allowed when primary' \
        connect --discard-my-data
    node_ctl "$loser" secondary
    cp "${node_disks[$winner]}" "$nodes/winner.img"
    node_log_mark "$loser"
    node_ctl "$winner" connect
    node_ctl "$loser" connect --discard-my-data
    node_wait "$loser" "cs:Connected ro:Secondary/Primary ds:UpToDate/UpToDate" 30
    node_wait "$winner" "$in_sync" 10
    [[ $(node_began_resync "$loser") == 150 ]] ||
        fail "resync of $(node_began_resync "$loser") blocks, not 150"
    records verify "$(node_uri "$winner")" "$nodes/records.$winner" >/dev/null ||
        fail "records of the winner are lost"
    node_ctl "$winner" secondary
    same_data "$nodes/winner.img" "${node_disks[$winner]}" || fail "the winner was changed"
    same_data "${node_disks[a]}" "${node_disks[b]}" || fail "the disks differ"
}

nodes_configure C 32
make_equal_metadata "${node_disks[a]}"
make_equal_metadata "${node_disks[b]}"
dd if=/dev/urandom of="$nodes/content" bs=1M count=8 status=none
for node in a b; do dd if="$nodes/content" of="${node_disks[$node]}" conv=notrunc status=none; done
node_up a
node_up b
node_wait a "$in_sync" 20
echo "both nodes written while apart end StandAlone, with rule, blocks at stake and the way out"
split
meet
echo "connect --discard-my-data on b: only its changes are lost"
resolve b a
echo "the same with a"
split
meet
resolve a b
node_down a
node_down b
same_metadata "${node_disks[a]}" "${node_disks[b]}"
