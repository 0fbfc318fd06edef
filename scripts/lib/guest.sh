# Helpers for jobs in the virtual machine (scripts/vm): disks, links, the other machine. Sourced, not run.
# shellcheck shell=bash

# shellcheck source=scripts/lib/wait.sh
. "$(dirname "${BASH_SOURCE[0]}")/wait.sh"

# make_disk MIB [FILE]: prints the name of a new block device over a sparse file (by default in the
# guest's /tmp, which is memory). O_DIRECT works on the device though it does not on the file.
make_disk() {
    local file=${2:-$(mktemp /tmp/disk.XXXXXX)}
    truncate --size "$1M" "$file"
    losetup --find --show "$file"
}

# same_bytes BYTES DEVICE DEVICE: whether two disks hold the same. What was read of them before is
# forgotten first: who writes to the device below (DRBD does) leaves the kernel's cache as it is.
same_bytes() {
    blockdev --flushbufs "$2" "$3"
    cmp --bytes="$1" "$2" "$3"
}

# link_cut PORT...: from now on every packet from or to these TCP ports is lost, in silence.
link_cut() {
    local port
    for port in "$@"; do
        iptables -I INPUT -p tcp --dport "$port" -j DROP
        iptables -I INPUT -p tcp --sport "$port" -j DROP
    done
}

# link_heal PORT...: takes back link_cut.
link_heal() {
    local port
    for port in "$@"; do
        iptables -D INPUT -p tcp --dport "$port" -j DROP
        iptables -D INPUT -p tcp --sport "$port" -j DROP
    done
}

# The two machines of a pair wait for each other by names of events that have happened.
pair_signal() { : >"/shared/$1"; }

# pair_await EVENT [SECONDS]
pair_await() { wait_until "${2:-60}" test -e "/shared/$1" || fail "no signal $1 from the peer"; }
