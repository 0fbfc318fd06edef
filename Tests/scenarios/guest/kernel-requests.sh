# Requests of every kind cross the wire between repd and the kernel, and resyncs are interrupted.
set -euo pipefail
. "$REPD_ROOT/scripts/lib/repd-and-kernel.sh"

device=/dev/drbd1

# resync_rate RATE: the target decides, and takes over what the other one says when they connect.
resync_rate() {
    nodes_rate="resync-rate $1;"
    kernel_disk_options=("--resync-rate=$1" --c-plan-ahead=0)
}

# Blocks that are written while a resync is interrupted: so many may be out of sync once more.
written_blocks=500

# interrupted: a full resync of 32 MiB at 1.5 MiB/s is cut twice; what was copied stays copied.
interrupted() {
    local turn began left
    for turn in 1 2; do
        node_wait a 'cs:Sync(Source|Target)' 20 || fail "no resync"
        kernel_wait_state 1 'cs:Sync(Source|Target)' 20
        left=$((32728 - turn * 3000))
        wait_until 20 has_copied "$left" || fail "the resync does not move"
        pair_cut
        wait_lost
        pair_log_mark
        pair_heal
        node_wait a 'cs:Sync(Source|Target)' 20 || fail "the resync does not go on"
        kernel_wait_state 1 'cs:Sync(Source|Target)' 20
        wait_until 5 test -n "$(kernel_began_resync 1)"
        began=$(node_began_resync a)
        [[ $began == "$(kernel_began_resync 1)" ]] ||
            fail "repd resyncs $began blocks, the kernel $(kernel_began_resync 1)"
        [[ $began -le $((left / 4 + written_blocks)) ]] ||
            fail "resync of $began blocks, but only $left KiB were left"
    done
}

# has_copied KIB: at most so much is left.
has_copied() { [[ $(out_of_sync a) -lt $1 ]]; }

# writer_writes: application writes cross the wire.
writer_writes() {
    local now
    now=$(node_value a dw)
    [[ $now -gt ${written:-$now} ]] && return 0
    written=${written:-$now}
    return 1
}

kernel_load
pair_disks 32
make_equal_metadata "${node_disks[a]}"
make_equal_metadata "${node_disks[b]}"
pair_up C
pair_in_sync "of equal meta data"

echo "large, small, unaligned and overlapping writes, trims, zeroes, FUA, flushes from repd"
node_primary a
uri=$(node_uri a)
timeout 60 qemu-io -f raw -c 'write -P 1 0 12M' -c 'write -P 2 1049088 3584' -c 'write -P 3 512 512' \
    -c 'discard 2M 4M' -c 'discard 7340544 1536' -c 'write -z 8M 1M' -c 'write -z -u 9M 512k' \
    -c 'write -f -P 4 20M 64k' -c 'aio_write -P 5 16M 256k' -c 'aio_write -P 6 16M 256k' \
    -c 'aio_write -P 7 16380k 256k' -c aio_flush -c flush -c 'read -P 0 2M 4M' -c 'read -P 0 8M 1536k' \
    "$uri" >/tmp/io 2>&1 || fail "$(cat /tmp/io)"
if grep -qi 'error\|fail' /tmp/io; then fail "$(cat /tmp/io)"; fi
fio_verify --size=4M --bsrange=512-8k --blockalign=512 --iodepth=32 --ioengine=nbd "--uri=$uri"
node_ctl a secondary
pair_same "after repd's requests"
kernel_is_content

echo "the same from the kernel"
kernel_primary 1
dd if=/dev/urandom of="$device" bs=4M count=4 oflag=direct status=none
dd if=/dev/urandom of="$device" bs=512 seek=4097 count=9 oflag=direct conv=fsync status=none
dd if=/dev/urandom of="$device" bs=1M count=4 seek=20 oflag=direct,sync status=none
blkdiscard -o 2M -l 4M "$device"
blkdiscard -z -o 8M -l 1M "$device"
blkdiscard -o 7340544 -l 1536 "$device"
cmp -n 4194304 -i 2097152:0 "$device" /dev/zero || fail "what was discarded does not read as zeroes"
fio_verify --size=4M --bsrange=512-8k --blockalign=512 --iodepth=32 --filename="$device" \
    --ioengine=libaio --direct=1
kernel_secondary 1
pair_same "after the kernel's requests"
kernel_is_content 'operation not supported error'

echo "a resync to the kernel, cut twice, with writes going on"
pair_down
resync_rate 1500K
pair_up C
pair_in_sync "again"
node_primary a
pair_log_mark
"$python3" "$REPD_ROOT/scripts/lib/records.py" write "$uri" "$nodes/records" --rate 40 \
    --first 3000 --blocks "$written_blocks" >"$nodes/writer" 2>&1 &
writer=$!
written=''
wait_until 20 writer_writes || fail "the writer does not start"
"$drbdsetup_84" invalidate 1
interrupted
kill -TERM "$writer"
wait "$writer" || fail "the writer saw an error: $(cat "$nodes/writer")"
"$drbdsetup_84" disk-options 1 --resync-rate=200M --c-plan-ahead=0
pair_in_sync "after interruptions"
node_ctl a secondary
pair_same "after interruptions"
kernel_is_content

echo "a resync to repd, cut twice, with writes going on"
pair_down
pair_up C
pair_in_sync "again"
kernel_primary 1
pair_log_mark
"$python3" "$REPD_ROOT/scripts/lib/records.py" write "$device" "$nodes/records" --depth 1 \
    --first 3000 --blocks "$written_blocks" --rate 40 >"$nodes/writer" 2>&1 &
writer=$!
written=''
wait_until 20 writer_writes || fail "the writer does not start"
node_ctl a invalidate
interrupted
# The third interruption: repd goes down, and comes back with a faster rate.
node_down a
resync_rate 200M
"$drbdsetup_84" disk-options 1 "${kernel_disk_options[@]}"
nodes_configure C
node_up a
kill -TERM "$writer"
wait "$writer" || fail "the writer saw an error: $(cat "$nodes/writer")"
pair_in_sync "after interruptions"
kernel_secondary 1
pair_same "after interruptions"
kernel_is_content
pair_down
pair_same_at_rest
