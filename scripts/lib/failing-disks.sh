# Disks of the virtual machine that fail when they are told to, wholly or in one place (device-mapper).
# Sourced after repd-and-kernel.sh, which sets $nodes; not run.
# shellcheck shell=bash disable=SC2154

# dm_disk NAME MIB: a disk that can fail.
dm_disk() {
    local below
    below=$(make_disk "$2")
    dmsetup create "$1" --table "0 $(blockdev --getsz "$below") linear $below 0"
    dmsetup mknodes "$1"
    echo "$below" >"$nodes/below.$1"
}

# dm_becomes NAME TABLE: between two requests.
dm_becomes() {
    dmsetup suspend --noflush --nolockfs "$1"
    dmsetup load "$1" <<<"$2"
    dmsetup resume "$1"
}

disk_size_of() { blockdev --getsz "/dev/mapper/$1"; }
disk_fails() { dm_becomes "$1" "0 $(disk_size_of "$1") error"; }
disk_returns() { dm_becomes "$1" "0 $(disk_size_of "$1") linear $(cat "$nodes/below.$1") 0"; }

# block_fails NAME BLOCK: of 4 KiB.
block_fails() {
    local below sector=$(($2 * 8)) behind=$(($2 * 8 + 8))
    below=$(cat "$nodes/below.$1")
    dm_becomes "$1" "0 $sector linear $below 0
$sector 8 error
$behind $(($(disk_size_of "$1") - behind)) linear $below $behind"
}
