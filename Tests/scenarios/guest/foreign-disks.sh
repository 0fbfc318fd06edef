# A disk that repd left is attached by the kernel's DRBD and shows the same file system, and back.
set -euo pipefail
. "$REPD_ROOT/scripts/lib/repd-and-kernel.sh"

mount_point=/tmp/mount
mkdir -p "$mount_point"
# Which of the two has the one disk at the moment does not know a peer.
attach_a() { nodes_configure C && node_up a && node_primary a "$@" && attach_nbd; }
attach_nbd() { nbd-client -unix "$nodes/a/r0/nbd.sock" -N r0 /dev/nbd0 >/dev/null; }
detach_a() { nbd-client -d /dev/nbd0 >/dev/null && node_ctl a secondary && node_down a; }
attach_b() {
    drbdmeta_of "$disk" apply-al 2>&1 || fail "apply-al before the kernel attaches"
    kernel_attach r0 1 "$disk"
    kernel_primary 1 "$@"
}
detach_b() { kernel_secondary 1 && kernel_down r0; }

# tree NAME: a directory with files whose names and contents can be compared.
make_tree() {
    mkdir -p "$1/deep/er"
    head -c 3000000 /dev/urandom >"$1/large"
    local number
    for number in {1..40}; do echo "$RANDOM $number" >"$1/deep/er/$number"; done
}

# use DEVICE FROM TO: mounted there, what is in FROM is found, and TO is added.
use() {
    fsck.ext4 -f -n "$1" >/tmp/fsck 2>&1 || fail "fsck of $1: $(cat /tmp/fsck)"
    mount "$1" "$mount_point"
    [[ -z $2 ]] || diff -r "$2" "$mount_point/${2##*/}" || fail "$2 is not the same on $1"
    cp -r "$3" "$mount_point/"
    umount "$mount_point"
}

# rests DISK: as it is after `down`: UpToDate, nobody Primary, nothing active.
rests() {
    local state
    state=$(metadata "$1")
    [[ $state =~ \ 1:1:0:0:0:0:0\  ]] || fail "meta data at rest: $state"
    drbdmeta_of "$1" dump-md >/tmp/dump || fail "drbdmeta cannot dump $1"
    echo "  $state"
}

modprobe nbd
# Here nbd-client attaches it.
nodes_repd='kernel-device no;'
kernel_load
pair_disks 48
disk=${node_disks[a]}
for name in one two three four; do make_tree "/tmp/$name"; done

echo "repctl create-md, a file system by repd; the kernel attaches the disk and finds it"
nodes_configure C
node_create_md a
attach_a --force
mkfs.ext4 -q /dev/nbd0
use /dev/nbd0 '' /tmp/one
detach_a
rests "$disk"
attach_b
[[ $(blockdev --getsize64 /dev/drbd1) == "$(data_size "$disk")" ]] || fail "another size"
use /dev/drbd1 /tmp/one /tmp/two
detach_b
echo "the kernel left it; repd attaches it, without a tool in between, and finds both trees"
attach_a
use /dev/nbd0 /tmp/two /tmp/three
mount -o ro /dev/nbd0 "$mount_point"
diff -r /tmp/one "$mount_point/one" || fail "the first tree has changed"
umount "$mount_point"
detach_a
kernel_is_content 'operation not supported error'

echo "repd is killed with the file system mounted; the kernel attaches what it left"
# As if a peer had been in sync: from now on only what is written is out of sync.
make_equal_metadata "$disk"
attach_a
mount /dev/nbd0 "$mount_point"
cp -r /tmp/four "$mount_point/"
sync "$mount_point"/four/*
sync
node_kill a
umount -l "$mount_point"
nbd-client -d /dev/nbd0 >/dev/null 2>&1 || true
kernel_log_mark
attach_b
[[ $(kernel_value 1 oos) -ge 4096 && $(kernel_value 1 oos) -lt 49112 ]] ||
    fail "what was active at the crash is not out of sync: $(kernel_value 1 oos) KiB"
mount /dev/drbd1 "$mount_point" || fail "the file system cannot be mounted"
diff -r /tmp/three "$mount_point/three" || fail "the third tree has changed"
diff -r /tmp/four "$mount_point/four" || fail "the fourth tree was synced and has changed"
umount "$mount_point"
fsck.ext4 -f -n /dev/drbd1 >/tmp/fsck 2>&1 || fail "fsck: $(cat /tmp/fsck)"
detach_b

echo "the kernel's own disk, made by drbdmeta and left by the kernel, is attached by repd"
disk=${node_disks[b]}
drbdmeta_of "$disk" create-md >/dev/null 2>&1
attach_b --force
mkfs.ext4 -q /dev/drbd1
use /dev/drbd1 '' /tmp/one
detach_b
node_disks[a]=$disk
attach_a
use /dev/nbd0 /tmp/one /tmp/two
detach_a
rests "$disk"
kernel_is_content 'operation not supported error'
