# Meta data on a device of their own, of both kinds: made by repd, used by it, by the kernel's DRBD, and by
# repd again. Each finds the size and the data of the one before, and after a crash the active extents.
set -euo pipefail
. "$REPD_ROOT/scripts/lib/repd-and-kernel.sh"

# pattern BYTE: 1 MiB of it.
pattern() { head -c 1048576 /dev/zero | tr '\0' "$1"; }

# through_repd read|write BYTE MIB
through_repd() {
    qemu-io -f raw -c "$1 -P $(printf '%d' "'$2") $3M 1M" -c flush "$(node_uri a)" >/tmp/io 2>&1 ||
        fail "$(cat /tmp/io)"
    ! grep -q 'verification failed' /tmp/io || fail "repd reads something else at $3 MiB"
}

kernel_has() {
    cmp <(dd if=/dev/drbd1 bs=1M skip="$2" count=1 status=none) <(pattern "$1") ||
        fail "the kernel reads something else at $2 MiB"
}

# handed_over STATEMENT FORM INDEX DEVICE: how the configuration, drbdmeta and drbdsetup name the place.
handed_over() {
    local statement=$1 form=$2 index=$3 meta=$4 disk=${node_disks[a]}
    node_metadata=([a]="$statement")
    nodes_configure C
    node_create_md a
    node_up a
    node_primary a --force
    through_repd write a 3
    node_ctl a secondary
    node_down a
    kernel_load
    drbdmeta --force - v08 "$meta" "$form" apply-al </dev/null 2>&1 || fail "apply-al"
    "$drbdsetup_84" new-resource r0
    "$drbdsetup_84" new-minor r0 1 0
    "$drbdsetup_84" attach 1 "$disk" "$meta" "$index" || fail "the kernel does not attach what repd left"
    kernel_primary 1 --force
    [[ $(blockdev --getsize64 /dev/drbd1) == "$(blockdev --getsize64 "$disk")" ]] || fail "another size"
    kernel_has a 3
    pattern b | dd of=/dev/drbd1 bs=1M seek=40 oflag=direct conv=notrunc status=none
    kernel_secondary 1
    kernel_down r0
    echo "  and repd attaches what the kernel left"
    node_up a
    node_primary a
    through_repd read a 3
    through_repd read b 40
    through_repd write c 20
    node_kill a
    echo "  killed; the kernel attaches it"
    drbdmeta --force - v08 "$meta" "$form" apply-al </dev/null 2>&1 || fail "apply-al after the crash"
    "$drbdsetup_84" new-resource r0
    "$drbdsetup_84" new-minor r0 1 0
    "$drbdsetup_84" attach 1 "$disk" "$meta" "$index" || fail "the kernel does not attach what a crash left"
    kernel_primary 1 --force
    kernel_has c 20
    kernel_has b 40
    kernel_secondary 1
    kernel_down r0
}

node_disks=([a]=$(make_disk 64) [b]=$(make_disk 16))
meta=$(make_disk 1)
echo "flexible: all of another device"
handed_over "flexible-meta-disk $meta" flex-external flexible "$meta"
meta=$(make_disk 256)
echo "indexed: slot 1 of a device"
handed_over "meta-disk $meta [1]" 1 1 "$meta"
kernel_is_content 'operation not supported error'
