#!/usr/bin/env bash
# A disk that takes operations and does not answer: disk-timeout fails it, on the Secondary without
# anybody noticing, on the Primary with errors instead of silence; later it is attached again.
# timeout: 120
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib/scenario.sh"

need_binary repd repctl
nodes=$scratch/nodes
. "$REPD_ROOT/scripts/lib/nodes.sh"
mkdir -p "$nodes" "$scratch/mount"
nbdkit=''

unmount() {
    [[ -z $nbdkit ]] || kill -CONT "$nbdkit" 2>/dev/null || true
    fusermount3 -u "$scratch/mount" 2>/dev/null || fusermount3 -uz "$scratch/mount" 2>/dev/null || true
    scenario_clean_up
}
trap unmount EXIT

truncate --size 32M "$nodes/below.img"
background nbdkit --foreground --unix "$scratch/nbdkit" file "$nodes/below.img" >"$scratch/nbdkit.log" 2>&1
nbdkit=$background_pid
wait_until 10 test -S "$scratch/nbdkit" || fail "nbdkit does not listen: $(cat "$scratch/nbdkit.log")"
background nbdfuse "$scratch/mount/disk" "nbd+unix:///?socket=$scratch/nbdkit"
wait_until 10 test -s "$scratch/mount/disk" || fail "nbdfuse does not show the disk"
node_disks=([b]=$scratch/mount/disk)
# The peer is never given up because it is slow: only disk-timeout can help.
nodes_net='ko-count 0;'
nodes_disk='disk-timeout 10;'
nodes_configure C 32
make_equal_metadata "$nodes/a.img"
make_equal_metadata "$scratch/mount/disk"
node_up a
node_up b
in_step='cs:Connected ro:[A-Za-z/]* ds:UpToDate/UpToDate'
node_wait a "$in_step" 20 || fail "no pair"

sticks() { kill -STOP "$nbdkit"; }
goes_on() { kill -CONT "$nbdkit"; }
# attached_again: when the old operations have come back.
attached_again() {
    wait_until 20 node_has_state b 'ds:Diskless' || fail "b has not let its disk go: $(node_log b)"
    node_ctl b attach || fail "b does not attach: $(node_log b)"
    node_wait b "$in_step" 30 || fail "no resync"
}

echo "the Secondary's disk is stuck: the Primary's client sees a pause"
node_primary a
records fill "$(node_uri a)" "$nodes/records" --blocks 300 >/dev/null
sticks
"$python3" "$REPD_ROOT/scripts/lib/records.py" write "$(node_uri a)" "$nodes/records" --blocks 300 \
    --rate 200 --seconds 4 >"$nodes/writer" 2>&1 || fail "the client: $(cat "$nodes/writer")"
node_has_state a 'ro:Primary/' || fail "a is $(node_status a)"
goes_on
attached_again
node_ctl a secondary
same_data "$nodes/a.img" "$scratch/mount/disk" >/dev/null || fail "the disks differ"

echo "the Primary's disk is stuck: its client gets an error, and the peer has what was acknowledged"
node_primary b
"$python3" "$REPD_ROOT/scripts/lib/records.py" write "$(node_uri b)" "$nodes/records" --blocks 300 \
    --rate 200 --seconds 60 >"$nodes/writer" 2>&1 &
writer=$!
wait_until 20 node_writes b || fail "the writer does not begin"
sticks
if wait "$writer"; then fail "no client saw an error"; fi
grep -q ' [1-9][0-9]* failed' "$nodes/writer" || fail "the writer says $(cat "$nodes/writer")"
# Also what comes now is answered.
if nbdcopy "$(node_uri b)" null: 2>/dev/null; then fail "a Primary without disk can be read"; fi
node_ctl b secondary || fail "a Primary whose disk is stuck cannot be demoted"
node_primary a
records verify "$(node_uri a)" "$nodes/records" || fail "the peer lacks records"
goes_on
attached_again
node_ctl a secondary
same_data "$nodes/a.img" "$scratch/mount/disk" >/dev/null || fail "the disks differ"
node_down a
node_down b
