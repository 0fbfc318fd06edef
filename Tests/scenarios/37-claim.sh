#!/usr/bin/env bash
# A node is killed while its disk has not done its writes yet; they may not land after its successor
# has begun to serve. What keeps them away is the claim on the disk: the successor that reaches the
# same disk by another name, where there is nothing to claim, is overtaken by them.
# timeout: 240
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib/scenario.sh"
. "$REPD_ROOT/scripts/lib/nodes.sh"

need_binary repd repctl
nodes=$scratch/nodes
slow=4
blocks=16
mkdir -p "$nodes" "$scratch/mount" "$scratch/other"

unmount() {
    local mount
    for mount in "$scratch/mount" "$scratch/other"; do
        fusermount3 -u "$mount" 2>/dev/null || fusermount3 -uz "$mount" 2>/dev/null || true
    done
    scenario_clean_up
}
trap unmount EXIT

# A disk that takes its time for what is written while the file 'slow' is there; a file of pending/
# is a write that has not been done yet.
truncate --size 16M "$nodes/below.img"
mkdir "$scratch/pending"
export slow below=$nodes/below.img pending=$scratch/pending trigger=$scratch/slow
# shellcheck disable=SC2016
background nbdkit --foreground --unix "$scratch/nbdkit" eval get_size='echo 16M' \
    can_write='exit 0' can_flush='exit 0' thread_model='echo parallel' flush='exit 0' \
    pread='dd if="$below" iflag=skip_bytes,count_bytes,fullblock bs=64k skip="$4" count="$3"' \
    pwrite='to_disk() { dd of="$below" oflag=seek_bytes bs=64k seek="$1" conv=notrunc iflag=fullblock; }
        if [ ! -e "$trigger" ]; then to_disk "$4"; exit; fi
        cat >"$below.$4"
        mv "$below.$4" "$pending/$4"
        sleep "$slow"
        to_disk "$4" <"$pending/$4"
        rm "$pending/$4"' \
    >"$scratch/nbdkit.log" 2>&1
wait_until 10 test -S "$scratch/nbdkit" || fail "nbdkit does not listen: $(cat "$scratch/nbdkit.log")"
for mount in mount other; do
    background nbdfuse "$scratch/$mount/disk" "nbd+unix:///?socket=$scratch/nbdkit" \
        2>"$scratch/nbdfuse.log"
    wait_until 10 test -s "$scratch/$mount/disk" || fail "nbdfuse does not show the file"
done

# write_blocks BYTE: the first blocks, and waits for the answers.
write_blocks() {
    qemu-io -f raw -c "write -P $1 0 $((blocks * 4))k" -c flush "$(node_uri a)" >"$scratch/io" 2>&1 ||
        fail "$(cat "$scratch/io")"
}

# old_blocks BYTE: how many of the first blocks hold something else.
old_blocks() {
    "$python3" - "$nodes/below.img" "$1" "$blocks" <<'READ'
import sys
with open(sys.argv[1], "rb") as disk:
    byte, count = bytes([int(sys.argv[2])]), int(sys.argv[3])
    print(sum(disk.read(4096) != byte * 4096 for _ in range(count)))
READ
}

is_pending() { [[ -n $(ls "$pending") ]]; }
nothing_is_pending() { ! is_pending; }

# killed_and_followed DISK: whether the successor, which serves DISK, came up before the last write was
# done: $early; how many blocks then were overtaken: $overtaken.
killed_and_followed() {
    local -a writes=()
    local block
    node_disks=([a]=$scratch/mount/disk)
    nodes_configure C 16
    node_create_md a
    node_up a
    node_ctl a primary --force
    # Its extents are then in the activity log: what follows goes to the disk at once.
    write_blocks 1
    touch "$trigger"
    for ((block = 0; block < blocks; block++)); do writes+=(-c "aio_write -P 2 $((block * 4))k 4k"); done
    background qemu-io -f raw "${writes[@]}" -c aio_flush "$(node_uri a)" >"$scratch/io" 2>&1
    wait_until 5 is_pending || fail "the writes do not reach the disk"
    node_kill a
    end_process "$background_pid"
    rm -f "$trigger"
    is_pending || fail "the writes were done before the node was dead"
    node_disks=([a]=$1)
    nodes_configure C 16
    node_up a || fail "the successor does not come up"
    node_ctl a primary
    write_blocks 3
    early=no
    if is_pending; then early=yes; fi
    wait_until 15 nothing_is_pending || fail "the old writes are not done"
    overtaken=$(old_blocks 3)
    node_ctl a secondary
    node_down a
}

echo "a successor on the disk itself waits until the last write of the dead one is done"
killed_and_followed "$scratch/mount/disk"
[[ $early == no ]] || fail "the successor serves while writes of the dead node are under way"
[[ $overtaken == 0 ]] || fail "$overtaken blocks of the dead node landed after its successor served"

echo "the same without a claim: the dead node's writes overtake those of its successor"
killed_and_followed "$scratch/other/disk"
[[ $early == yes && $overtaken != 0 ]] || fail "this test cannot see what the claim prevents"
