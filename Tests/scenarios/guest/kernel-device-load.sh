# One node without a peer in a machine with little memory; its disk is /dev/vda, and can stand still.
#
#   kernel-device-load.sh MIB     how much is written to one file
set -euo pipefail
nodes=/tmp/nodes
. "$REPD_ROOT/scripts/lib/guest.sh"
. "$REPD_ROOT/scripts/lib/nodes.sh"
. "$REPD_ROOT/scripts/lib/supervised.sh"

load=$1
node_ports=([a]=7788 [b]=7789)
mount_point=/tmp/mount
device=/dev/drbd0
mkdir -p "$nodes" "$mount_point" /tmp/tree

disk_stops() { dmsetup suspend --noflush --nolockfs backing; }
disk_goes_on() { dmsetup resume backing; }
# done_by_device FIELD: bytes since the machine was started (Documentation/block/stat).
written=6 discarded=13
done_by_device() {
    local fields
    read -r -a fields </sys/block/nbd0/stat
    echo $((fields[$1] * 512))
}
# sleeps_in FUNCTION PID...: whether one of their threads is there in the kernel.
sleeps_in() {
    local process
    for process in "${@:2}"; do
        if grep -qs "$1" /proc/"$process"/task/*/stack; then return 0; fi
    done
    return 1
}
# is_blocked PROCESS: one of its threads waits for the device, or for pages that it may dirty.
is_blocked() { grep -qs '^State:.D' /proc/"$1"/task/*/status; }
# holders: processes that have the device open for a demotion.
# The pattern does not match itself.
holders() { grep -lzxs -- '-[-]hold-device' /proc/[0-9]*/cmdline | tr -dc '0-9\n' || true; }
flushes() {
    local processes
    mapfile -t processes < <(holders)
    sleeps_in fsync "${processes[@]}"
}
# Only the kernel's own threads have no command line.
nobody_hangs() {
    local file
    while read -r file; do
        if grep -qs . "${file%status}cmdline"; then return 1; fi
    done < <(grep -ls '^State:.D' /proc/[0-9]*/status)
}
# Every thread of the process gets memory without waiting for a block device (PF_MEMALLOC_NOIO).
waits_for_no_device() {
    local file fields
    for file in /proc/"$1"/task/*/stat; do
        fields=$(<"$file")
        read -r -a fields <<<"${fields##*) }"
        ((fields[6] & 0x80000)) || fail "$file of $(tr '\0' ' ' <"/proc/$1/cmdline") has flags ${fields[6]}"
    done
}
kernel_is_content() {
    if dmesg | grep -E 'I/O error|EXT4-fs error|XFS .*(orrupt|error)|Buffer I/O|blocked for more|Out of memory'; then
        fail "the kernel has complaints"
    fi
}
role_is() { [[ $(node_ctl a role) == "$1"/* ]] || fail "the role is $(node_ctl a role): $(log)"; }
configure() {
    nodes_repd="kernel-device yes; resume-limit 1000; $1"
    nodes_configure C
}

# make_file_system TYPE OPTION...: mkfs discards all of it before; what was there reads as zeros.
make_file_system() {
    # In the middle of what a file system keeps for data.
    local before where=$((size * 3 / 8 >> 20))
    dd if=/dev/urandom of="$device" bs=1M count=1 seek="$where" oflag=direct status=none
    before=$(done_by_device $discarded)
    "mkfs.$1" -q "${@:2}" "$device" || fail "mkfs.$1"
    (($(done_by_device $discarded) - before > size * 9 / 10)) || fail "mkfs.$1 did not discard the device"
    dd if="$device" of=/tmp/middle bs=1M count=1 skip="$where" iflag=direct status=none
    cmp -n 1M /tmp/middle /dev/zero || fail "what mkfs.$1 discarded is there still"
    mount -t "$1" "$device" "$mount_point"
    cp -r /tmp/tree "$mount_point"
    umount "$mount_point"
}
# has_tree: as it is on the device; the last umount has left nothing in the kernel's caches.
has_tree() {
    mount -o ro "$device" "$mount_point"
    diff -r /tmp/tree "$mount_point/tree" || fail "the files differ"
    umount "$mount_point"
}

(($(awk '$1 == "MemTotal:" { print $2 }' /proc/meminfo) < load * 1024)) || fail "all of it fits into memory"
modprobe -a nbd dm-mod xfs
dmsetup create backing --table "0 $(blockdev --getsz /dev/vda) linear /dev/vda 0"
dmsetup mknodes backing
node_disks=([a]=/dev/mapper/backing [b]=/tmp/none)
# A machine that is emulated may be slow.
configure 'resume-timeout 60;'
node_create_md a
node_ctl a up || fail "up: $(log)"
node_primary a --force
size=$(blockdev --getsize64 "$device")
for number in {1..30}; do head -c $((RANDOM * 4)) /dev/urandom >"/tmp/tree/$number"; done

echo "engine and supervisor wait for no memory that only the device can free"
waits_for_no_device "$(engine)"
waits_for_no_device "$(supervisor)"

echo "mkfs.xfs with discard, files: xfs_repair finds nothing"
make_file_system xfs -f
xfs_repair -n "$device" >/tmp/said 2>&1 || fail "xfs_repair: $(cat /tmp/said)"
has_tree

echo "mkfs.ext4 with discard, files: fsck finds nothing"
make_file_system ext4 -F -m 0 -E discard
e2fsck -fn "$device" || fail "e2fsck"
has_tree
kernel_is_content

echo "$load MiB through the file system, three times kill -9 of the engine: no error"
start=$SECONDS
mount "$device" "$mount_point"
before=$(done_by_device $written)
has_written() { (($(done_by_device $written) - before > $1 << 20)); }
fio_load=(fio --name=load --filename="$mount_point/load" --ioengine=psync --bs=256k --size="${load}M"
    --verify=crc32c --verify_fatal=1 --verify_state_save=0 --fallocate=none --thread)
"${fio_load[@]}" --rw=write --do_verify=0 --end_fsync=1 >/tmp/fio 2>&1 &
writer=$!
for part in 1 2; do
    wait_until "$load" has_written $((load * part / 5)) || fail "the load stands still: $(log)"
    engine_dies
    kill -0 "$writer" 2>/dev/null || fail "the load has ended too soon: $(cat /tmp/fio)"
    role_is Primary
done
# As long as it takes until the writer may dirty no more pages.
wait_until "$load" has_written $((load * 3 / 5)) || fail "the load stands still: $(log)"
gap
wait_until 10 is_blocked "$writer" ||
    fail "the writer does not wait: $(cat /tmp/fio) $(cat /proc/"$writer"/task/*/stack)"
gap_ends
role_is Primary
waits_for_no_device "$(engine)"
wait "$writer" || fail "the load: $(cat /tmp/fio)"
echo "  written in $((SECONDS - start)) s"
kernel_is_content

echo "all of it is there, and fsck finds nothing"
start=$SECONDS
umount "$mount_point"
e2fsck -fn "$device" || fail "e2fsck"
mount -o ro "$device" "$mount_point"
"${fio_load[@]}" --rw=read >/tmp/fio 2>&1 || fail "the file: $(cat /tmp/fio)"
umount "$mount_point"
kernel_is_content
echo "  read in $((SECONDS - start)) s"

# demotion_flushes COMMAND: this one of repctl has begun, pages are dirty, and the disk stands still.
demotion_flushes() {
    head -c 8M /dev/urandom >/tmp/pattern
    # The last one to close it would flush it.
    exec 7<>"$device"
    disk_stops
    dd if=/tmp/pattern of="$device" bs=1M conv=notrunc status=none
    node_ctl a "$1" >/tmp/said 2>&1 7>&- &
    demotion=$!
    wait_until 20 flushes || fail "$1 does not flush: $(cat /tmp/said; log)"
    exec 7>&-
}
# engine_is_killed: it has nothing more to say, but is gone only when its disk has answered.
engine_is_killed() {
    local process
    process=$(engine)
    kill -KILL "$process"
    disk_goes_on
    wait_until 20 process_is_gone "$process" || fail "the engine does not die"
}
demotion_is_done() {
    wait "$demotion" || fail "status $?: $(cat /tmp/said; log)"
    wait_until 10 eval '! is_attached' || fail "still attached: $(log)"
    wait_until 10 nobody_hangs || fail "somebody hangs: $(ps axo pid,stat,wchan,args)"
    wait_until 10 eval '[[ -z $(holders) ]]' || fail "processes are left: $(holders)"
}
has_pattern() {
    dd if="$device" of=/tmp/found bs=1M count=8 iflag=direct status=none
    cmp /tmp/pattern /tmp/found || fail "what was flushed is not there"
}

echo "kill -9 while a demotion flushes: the next engine carries it out"
demotion_flushes secondary
engine_is_killed
demotion_is_done
role_is Secondary
node_ctl a status >/tmp/said || fail "status: $(cat /tmp/said; log)"
node_ctl a secondary || fail "secondary: $(log)"
node_primary a
has_pattern

echo "the same with down"
demotion_flushes down
engine_is_killed
demotion_is_done
[[ ! -L $device ]] || fail "the link is left"
configure 'resume-timeout 0;'
node_ctl a up || fail "up: $(log)"
node_primary a
has_pattern

echo "the next one is not Primary again: what waits fails, nothing hangs, the device works again"
demotion_flushes secondary
engine_is_killed
demotion_is_done
role_is Secondary
node_ctl a status >/tmp/said || fail "status: $(cat /tmp/said; log)"
node_ctl a secondary || fail "secondary: $(log)"
node_primary a
dd if=/tmp/pattern of="$device" bs=1M oflag=direct status=none || fail "the device cannot be written to"
has_pattern
node_ctl a down || fail "down: $(log)"
wait_until 10 eval '! is_attached' || fail "still attached: $(log)"
