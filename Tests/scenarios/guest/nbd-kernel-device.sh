# Two repd in one machine, used through the kernel's /dev/nbd0: a file system moves with the role.
set -euo pipefail
nodes=/tmp/nodes
. "$REPD_ROOT/scripts/lib/guest.sh"
. "$REPD_ROOT/scripts/lib/nodes.sh"

node_ports=([a]=7788 [b]=7789)
mount_point=/tmp/mount
mkdir -p "$nodes" "$mount_point" /tmp/tree
# Here nbd-client attaches it.
nodes_repd='kernel-device no;'
in_sync='cs:Connected ro:[A-Za-z/]* ds:UpToDate/UpToDate'
attach() { nbd-client -unix "$nodes/$1/r0/nbd.sock" -N r0 /dev/nbd0 >/dev/null; }
detach() { nbd-client -d /dev/nbd0 >/dev/null; }

modprobe nbd
node_disks=([a]=$(make_disk 48) [b]=$(make_disk 48))
nodes_configure C
node_create_md a
node_create_md b
node_up a
node_up b
node_primary a --force
node_wait a "$in_sync" 60

echo "the Secondary's export is refused by name"
if output=$(attach b 2>&1); then fail "a Secondary was attached: $output"; fi
echo "mkfs.ext4, a tree of files, umount"
attach a
[[ $(blockdev --getsize64 /dev/nbd0) == "$(data_size "${node_disks[a]}")" ]] || fail "wrong size"
mkfs.ext4 -q /dev/nbd0
mount /dev/nbd0 "$mount_point"
for number in {1..60}; do head -c $((RANDOM * 4)) /dev/urandom >"/tmp/tree/$number"; done
cp -r /tmp/tree "$mount_point/"
echo "while it is mounted the role stays"
node_refuses a 11 '(-12) Device is held open by someone' secondary
node_refuses a 11 '(-12) Device is held open by someone' down
umount "$mount_point"
detach
echo "the other node has it, and fsck -f finds nothing"
node_ctl a secondary
node_primary b
attach b
fsck.ext4 -f -n /dev/nbd0 || fail "fsck on the other node"
mount /dev/nbd0 "$mount_point"
diff -r /tmp/tree "$mount_point/tree" || fail "the tree differs"
rm -r "$mount_point"/tree/1*
fstrim "$mount_point" || fail "no trim"
head -c 2000000 /dev/urandom >"$mount_point/more"
umount "$mount_point"
blkdiscard -f -o 0 -l 1048576 -z /dev/nbd0 || fail "no write-zeroes"
detach
node_ctl b secondary
same_data "${node_disks[a]}" "${node_disks[b]}" || fail "the disks differ"
node_down a
node_down b
same_metadata "${node_disks[a]}" "${node_disks[b]}"
