#!/usr/bin/env bash
# A Primary alone is killed at random moments under load: repctl and drbdmeta find the same extents in
# its log, every acknowledged block is there; and with a volatile cache below, every flushed one.
# timeout: 240
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib/scenario.sh"

need_binary repd repctl
nodes=$scratch/nodes
. "$REPD_ROOT/scripts/lib/nodes.sh"
# For more of them: REPD_KILLS=50.
kills=${REPD_KILLS:-8}
mkdir -p "$nodes" "$scratch/mount"

unmount() {
    fusermount3 -u "$scratch/mount" 2>/dev/null || fusermount3 -uz "$scratch/mount" 2>/dev/null || true
    scenario_clean_up
}
trap unmount EXIT

# alone_up: the disk, nobody to connect to, Primary.
alone_up() {
    node_start a
    node_ctl a attach
    node_primary a
}

# applied_by TOOL IMAGE: the text of the meta data after TOOL has applied the log.
applied_by() {
    if [[ $1 == drbdmeta ]]; then
        drbdmeta_of "$2" apply-al >/dev/null 2>&1 || fail "drbdmeta apply-al"
    else
        sed "s|disk ${node_disks[a]};|disk $2;|" "$nodes/a.conf" >"$nodes/copy.conf"
        "$REPCTL" -c "$nodes/copy.conf" --run-dir "$nodes/none" --node-name a apply-al r0 \
            2>"$nodes/errors" || fail "repctl apply-al: $(cat "$nodes/errors")"
    fi
    drbdmeta_of "$2" dump-md 2>/dev/null | grep -v '^#' || fail "no dump of $2"
}

echo "$kills times kill -9 under load: the same extents for repctl and drbdmeta, every record"
# 67 slots for 98 extents: transactions all the time.
nodes_disk='al-extents 67;'
nodes_configure C 420
make_equal_metadata "$nodes/a.img"
alone_up
marked=0
for ((turn = 1; turn <= kills; turn++)); do
    "$python3" "$REPD_ROOT/scripts/lib/records.py" write "$(node_uri a)" "$nodes/records" --blocks 100000 \
        --may-fail >"$nodes/writer" 2>&1 &
    writer=$!
    wait_until 20 node_writes || fail "the writer does not begin"
    sleep "0.$((RANDOM % 5))$((RANDOM % 10))"
    node_kill a
    wait "$writer" || fail "the writer: $(cat "$nodes/writer")"
    cp --sparse=always "$nodes/a.img" "$nodes/x.img"
    cp --sparse=always "$nodes/a.img" "$nodes/y.img"
    applied_by repctl "$nodes/x.img" >"$nodes/x.text"
    applied_by drbdmeta "$nodes/y.img" >"$nodes/y.text"
    diff "$nodes/x.text" "$nodes/y.text" >"$nodes/diff" || fail "kill $turn: $(head -n 20 "$nodes/diff")"
    [[ $(drbdmeta_of "$nodes/x.img" dump-md 2>/dev/null) =~ '# bits-set '([0-9]+) ]]
    marked=$((marked + BASH_REMATCH[1]))
    records verify "$nodes/a.img" "$nodes/records" >"$nodes/verify" || fail "kill $turn: $(cat "$nodes/verify")"
    alone_up
done
[[ $marked -gt 0 ]] || fail "no extent was ever in the log"
node_down a

echo "a volatile cache below, killed together with the engine: what was flushed is there"
truncate --size 64M "$nodes/below.img"
make_equal_metadata "$nodes/below.img"
node_disks[a]=$scratch/mount/disk
nodes_configure C
for ((turn = 1; turn <= 5; turn++)); do
    background nbdkit --foreground --unix "$scratch/nbdkit" --filter=cache file "$nodes/below.img" \
        cache=writeback >"$scratch/nbdkit.log" 2>&1
    nbdkit=$background_pid
    wait_until 10 test -S "$scratch/nbdkit" || fail "nbdkit does not listen: $(cat "$scratch/nbdkit.log")"
    background nbdfuse "$scratch/mount/disk" "nbd+unix:///?socket=$scratch/nbdkit"
    fuse=$background_pid
    wait_until 10 test -s "$scratch/mount/disk" || fail "nbdfuse does not show the disk"
    alone_up
    # Blocks of this turn, flushed; then others, as long as it lives.
    qemu-io -f raw -c "write -P $turn 0 2M" -c flush "$(node_uri a)" >"$scratch/io" 2>&1 ||
        fail "$(cat "$scratch/io")"
    "$python3" "$REPD_ROOT/scripts/lib/records.py" write "$(node_uri a)" "$nodes/unflushed" --first 2000 \
        --blocks 4000 --may-fail >"$nodes/writer" 2>&1 &
    writer=$!
    wait_until 20 node_writes || fail "the writer does not begin"
    sleep "0.$((RANDOM % 4))"
    kill -KILL "$nbdkit" "${node_pids[a]}"
    wait "$writer" || fail "the writer: $(cat "$nodes/writer")"
    wait "$nbdkit" "${node_pids[a]}" 2>/dev/null || true
    fusermount3 -u "$scratch/mount" 2>/dev/null || fusermount3 -uz "$scratch/mount"
    wait "$fuse" 2>/dev/null || true
    rm -f "$scratch/nbdkit" "$nodes/unflushed"
    qemu-io -r -f raw -c "read -P $turn 0 2M" "$nodes/below.img" >"$scratch/io" 2>&1 ||
        fail "$(cat "$scratch/io")"
    if grep -q 'Pattern verification failed' "$scratch/io"; then
        fail "turn $turn: flushed blocks are lost: $(cat "$scratch/io")"
    fi
done
