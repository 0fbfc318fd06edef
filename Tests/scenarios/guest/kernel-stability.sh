# What hangs if nobody proves to the Primary that the kernel has flushed (S6), and bits under equal
# UUIDs, which the kernel alone would ignore (law 1).
set -euo pipefail
. "$REPD_ROOT/scripts/lib/repd-and-kernel.sh"

kernel_load
pair_disks 300
nodes_disk='al-extents 67;'
make_equal_metadata "${node_disks[a]}"
make_equal_metadata "${node_disks[b]}"
pair_up C
pair_in_sync "of equal meta data"
[[ -z $(kernel_began_resync 1) ]] || fail "equal disks were synced"
node_primary a

echo "write and fsync at depth 1, one after the other"
timeout 60 fio --name=sync --ioengine=nbd "--uri=$(node_uri a)" --rw=randwrite --bs=4k --iodepth=1 \
    --fsync=1 --size=64M --io_size=600k --output=/dev/null || fail "write and fsync do not go on"

echo "67 extents with a write in flight each, then a cold one"
timeout 60 "$python3" - "$(node_uri a)" <<'PYTHON' || fail "a cold extent waits for ever"
import sys
import nbd

handle = nbd.NBD()
handle.connect_uri(sys.argv[1])
failures = []


def done(error):
    if error:
        failures.append(error)
    return 1


for turn in range(3):
    for first in (0, 4):
        data = nbd.Buffer.from_bytearray(bytearray([turn + 1]) * 4096)
        for extent in range(first, first + 67):
            handle.aio_pwrite(data, extent * 4194304 + turn * 4096, done)
        # Cold: all the slots are taken by the others.
        handle.aio_pwrite(data, (first + 67) % 71 * 4194304 + 65536, done)
        while handle.aio_in_flight():
            handle.poll(-1)
if failures:
    sys.exit(f"writes failed: {failures}")
handle.shutdown()
PYTHON
node_ctl a secondary
same_extents() {
    "$python3" - "${node_disks[@]}" <<'PYTHON'
import os
import sys

first, second = (os.open(path, os.O_RDONLY) for path in sys.argv[1:])
for extent in range(72):
    if os.pread(first, 131072, extent * 4194304) != os.pread(second, 131072, extent * 4194304):
        sys.exit(f"extent {extent} differs")
PYTHON
}
blockdev --flushbufs "${node_disks[@]}"
same_extents || fail "the disks differ after the load"
kernel_is_content
pair_down
same_metadata_after_kernel

echo "bits under equal UUIDs: repd makes the kernel follow, and only these blocks travel"
pair_disks 32
nodes_disk=''
make_equal_metadata "${node_disks[a]}" 0 0x00FF 0 0xF
make_equal_metadata "${node_disks[b]}"
for block in 64 65 66 67 68 69 70 71 192 193 194 195; do
    dd if=/dev/urandom of="${node_disks[a]}" bs=4k seek="$block" count=1 conv=notrunc oflag=direct \
        status=none
done
kernel_log_mark
pair_up C
kernel_wait_state 1 "$in_sync" 20
wait_until 20 test "$(kernel_began_resync 1)" || true
pair_in_sync "of bits under equal UUIDs"
began_resync 12 "bits under equal UUIDs"
pair_same "after bits under equal UUIDs"
kernel_is_content
pair_down
pair_same_at_rest
