# on-io-error pass_on: a block that fails under repd and under the kernel's DRBD, read and written.
set -euo pipefail
. "$REPD_ROOT/scripts/lib/repd-and-kernel.sh"
. "$REPD_ROOT/scripts/lib/failing-disks.sh"

device=/dev/drbd1

# ask OPERATION BLOCK: a client's request of 4 KiB to repd; status 1 if it is answered with EIO.
ask() {
    "$python3" - "$(node_uri a)" "$1" "$2" <<'PROGRAM'
import sys, errno, nbd
uri, operation, block = sys.argv[1:]
handle = nbd.NBD()
handle.connect_uri(uri)
try:
    if operation == "read":
        handle.pread(4096, int(block) * 4096)
    else:
        handle.pwrite(b"again..." * 512, int(block) * 4096)
except nbd.Error as error:
    if error.errnum != errno.EIO:
        raise
    sys.exit(1)
PROGRAM
}

# resync_by_hand BLOCKS TEXT: as docs/operation.md says.
resync_by_hand() {
    pair_log_mark
    node_ctl a disconnect || fail "$2: no disconnect: $(node_log a)"
    node_ctl a connect || fail "$2: no connect: $(node_log a)"
    # The kernel has gone StandAlone with it, or waits.
    node_wait a 'cs:(WFConnection|Connected|SyncTarget|SyncSource)' 10 || fail "$2: a does not connect"
    kernel_has_state 1 'cs:StandAlone' && b_connect --protocol=C
    pair_in_sync "$2"
    began_resync "$1" "$2"
    pair_same "$2"
}

kernel_load
modprobe dm-mod
mkdir -p "$nodes"
dm_disk disk-a 32
dm_disk disk-b 32
node_disks=([a]=/dev/mapper/disk-a [b]=/dev/mapper/disk-b)
nodes_disk='on-io-error pass_on;'
kernel_disk_options+=(--on-io-error=pass_on)
expected='I/O error|IO ERROR|disk\( |pdsk\( |Local IO failed|local (READ|WRITE) IO error|Sending NegAck|NegAck|dm-|NEG|failed'
make_equal_metadata "${node_disks[a]}"
make_equal_metadata "${node_disks[b]}"
pair_up C
pair_in_sync "of equal meta data"

for operation in write read; do
    echo "a block of repd's disk fails under a $operation of the Primary: EIO, the others are served"
    node_primary a
    records fill "$(node_uri a)" "$nodes/records" --blocks 200 >/dev/null
    pair_log_mark
    block_fails disk-a 100
    if ask $operation 100; then fail "the client sees no error"; fi
    node_wait a 'cs:Connected ro:Primary/Secondary ds:Inconsistent/UpToDate' 10 || fail "no mark of the damage"
    kernel_wait_state 1 'cs:Connected ro:Secondary/Primary ds:UpToDate/Inconsistent' 10 ||
        fail "the kernel does not know"
    if ask read 100; then fail "a block that failed is read"; fi
    ask read 99 || fail "a good block is not served"
    records fill "$(node_uri a)" "$nodes/records" --first 101 --blocks 150 >/dev/null || fail "no more writes"
    [[ $(out_of_sync a) == 4 ]] || fail "out of sync: $(out_of_sync a) KiB, not 4"
    disk_returns disk-a
    node_ctl a secondary || fail "no demotion: $(node_log a)"
    resync_by_hand 1 "after a $operation that failed"
    kernel_primary 1
    records verify "$device" "$nodes/records" >/dev/null || fail "records are lost"
    kernel_secondary 1
    # What failed here had reached the peer, and came back from there.
    [[ $operation == read ]] || [[ $(dd if="${node_disks[a]}" bs=4096 skip=100 count=1 iflag=direct \
        status=none | head -c 8) == again... ]] || fail "the block is not the peer's"
done

echo "a block of repd's disk fails on the Secondary: the kernel's client does not notice"
kernel_primary 1
block_fails disk-a 100
records fill "$device" "$nodes/records" --blocks 200 >/dev/null || fail "the Primary's client noticed"
node_wait a 'cs:Connected ro:Secondary/Primary ds:Inconsistent/UpToDate' 10 || fail "no mark of the damage"
kernel_wait_state 1 'cs:Connected ro:Primary/Secondary ds:UpToDate/Inconsistent' 10 ||
    fail "the kernel does not know"
disk_returns disk-a
missed=$(($(kernel_value 1 oos) / 4))
[[ $missed -ge 1 && $missed -le 200 ]] || fail "$missed blocks are out of sync"
resync_by_hand "$missed" "after a Secondary's failure"
records verify "$device" "$nodes/records" >/dev/null || fail "records are lost"
kernel_secondary 1

echo "a block of the kernel's disk fails on the Secondary: repd's client does not notice"
node_primary a
block_fails disk-b 100
records fill "$(node_uri a)" "$nodes/records" --blocks 200 >/dev/null || fail "the Primary's client noticed"
kernel_wait_state 1 'cs:Connected ro:Secondary/Primary ds:Inconsistent/UpToDate' 10 ||
    fail "no mark of the damage"
node_wait a 'cs:Connected ro:Primary/Secondary ds:UpToDate/Inconsistent' 10 || fail "repd does not know"
disk_returns disk-b
missed=$(($(out_of_sync a) / 4))
[[ $missed -ge 1 && $missed -le 200 ]] || fail "$missed blocks are out of sync"
resync_by_hand "$missed" "after the kernel's failure"
records verify "$(node_uri a)" "$nodes/records" >/dev/null || fail "records are lost"
node_ctl a secondary
kernel_is_content "$expected"
pair_down
pair_same_at_rest
