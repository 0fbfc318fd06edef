#!/usr/bin/env bash
# A pair of repd on one host; the disk of one of them fails, only for reads or only for writes.
# timeout: 240
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib/scenario.sh"
. "$REPD_ROOT/scripts/lib/nodes.sh"

need_binary repd repctl
nodes=$scratch/nodes
mkdir -p "$nodes" "$scratch/mount"
in_sync='cs:Connected ro:[A-Za-z/]* ds:UpToDate/UpToDate'

# A file in a file system of our own, behind a server that fails when it is told to.
unmount() {
    fusermount3 -u "$scratch/mount" 2>/dev/null || fusermount3 -uz "$scratch/mount" 2>/dev/null || true
    scenario_clean_up
}
trap unmount EXIT
truncate --size 32M "$nodes/below.img" "$nodes/b.img"
background nbdkit --foreground --unix "$scratch/nbdkit" --filter=error file "$nodes/below.img" \
    error-pread-rate=100% error-pread-file="$scratch/fail-reads" \
    error-pwrite-rate=100% error-pwrite-file="$scratch/fail-writes" >"$scratch/nbdkit.log" 2>&1
wait_until 10 test -S "$scratch/nbdkit" || fail "nbdkit does not listen: $(cat "$scratch/nbdkit.log")"
background nbdfuse "$scratch/mount/disk" "nbd+unix:///?socket=$scratch/nbdkit" 2>"$scratch/nbdfuse.log"
wait_until 10 test -s "$scratch/mount/disk" || fail "nbdfuse does not show the file"
node_disks=([a]=$scratch/mount/disk [b]=$nodes/b.img)
# The handler tells of every failure; the pair must not wait for it.
nodes_disk='on-io-error call-local-io-error;'
nodes_handlers="local-io-error \"env >>$scratch/handler; sleep 1; touch $scratch/handler-ended\";"
nodes_configure C 32
make_equal_metadata "${node_disks[a]}"
make_equal_metadata "${node_disks[b]}"
node_up a
node_up b
node_wait a "$in_sync" 20

# handler_has_run: for a failure of a's disk, with what drbd.conf's handlers get.
handler_has_run() {
    local line
    wait_until 10 grep -q '^DRBD_RESOURCE=r0$' "$scratch/handler" || fail "local-io-error was not run: $(node_log a)"
    for line in DRBD_MINOR=0 DRBD_VOLUME=0 "DRBD_LL_DISK=${node_disks[a]}" DRBD_PEER=b \
        DRBD_PEER_AF=ipv4 DRBD_PEER_ADDRESS=127.0.0.1 "DRBD_CONF=$nodes/a.conf"; do
        grep -qxF "$line" "$scratch/handler" || fail "local-io-error lacks $line: $(cat "$scratch/handler")"
    done
    [[ $(grep -c '^DRBD_RESOURCE' "$scratch/handler") == 1 ]] || fail "local-io-error was run more than once"
    # While it runs, the next failure would not call it.
    wait_until 10 test -e "$scratch/handler-ended" || fail "local-io-error does not end"
    rm "$scratch/handler" "$scratch/handler-ended"
}

reattach() {
    rm -f "$scratch/fail-reads" "$scratch/fail-writes"
    node_log_mark a
    node_ctl a attach || fail "no attach after the failure: $(node_log a)"
    node_wait a "$in_sync" 30 || fail "no sync after the failure"
    node_wait b "$in_sync" 10
}

echo "writes fail on the Secondary: the Primary goes on, a new attach copies the difference"
node_primary b
records fill "$(node_uri b)" "$nodes/records" --blocks 100 >/dev/null
touch "$scratch/fail-writes"
records fill "$(node_uri b)" "$nodes/records" --blocks 250 >/dev/null || fail "the Primary's client noticed"
node_wait b 'cs:Connected ro:Primary/Secondary ds:UpToDate/Diskless' 10
node_wait a 'ds:Diskless/UpToDate' 10
handler_has_run
[[ $(node_value b oos) == 1000 ]] || fail "out of sync: $(node_value b oos) KiB, not 1000"
if [[ -e $scratch/handler ]]; then fail "local-io-error was run without a failure"; fi
reattach
[[ $(node_began_resync a) == 250 ]] || fail "resync of $(node_began_resync a) blocks, not 250"
node_ctl b secondary

# fails_as_primary FILE: what fails, by the file that tells nbdkit.
fails_as_primary() {
    local writer
    node_primary a
    "$python3" "$REPD_ROOT/scripts/lib/records.py" write "$(node_uri a)" "$nodes/records" \
        --blocks 250 --rate 300 --seconds 30 >"$nodes/writer" 2>&1 &
    writer=$!
    scenario_pids+=("$writer")
    sleep 0.5
    touch "$scratch/$1"
    # A disk whose reads fail is noticed by a reader.
    if nbdcopy "$(node_uri a)" null: 2>/dev/null && [[ $1 == fail-reads ]]; then
        fail "the client sees no error"
    fi
    if wait "$writer"; then fail "the writer sees no error"; fi
    node_wait a 'ro:Primary/Secondary ds:Diskless/UpToDate' 10
    handler_has_run
    node_ctl a secondary || fail "a Primary without disk cannot be demoted"
    node_primary b
    records verify "$(node_uri b)" "$nodes/records" || fail "records are lost"
    records fill "$(node_uri b)" "$nodes/records" --blocks 250 >/dev/null
    reattach
    records verify "$(node_uri b)" "$nodes/records" >/dev/null || fail "records are lost by the attach"
    node_ctl b secondary
    cmp --bytes="$(data_size "${node_disks[b]}")" "$nodes/below.img" "$nodes/b.img" ||
        fail "the disks differ"
}

echo "reads fail on the Primary: EIO, and the peer is promoted with every record"
fails_as_primary fail-reads
echo "writes fail on the Primary: the same"
fails_as_primary fail-writes
node_down a
node_down b
same_metadata "${node_disks[a]}" "${node_disks[b]}"
