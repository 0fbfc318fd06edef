# The guest's /dev/nbd0 works against stock servers: proves the kernel's nbd for scenarios.
set -euo pipefail
. "$REPD_ROOT/scripts/lib/guest.sh"
modprobe nbd

# check_server NAME: writes through /dev/nbd0, reads the server's file.
check_server() {
    wait_until 10 test -S /tmp/socket || fail "$1 does not listen"
    nbd-client -unix /tmp/socket /dev/nbd0 >/dev/null
    [[ $(blockdev --getsize64 /dev/nbd0) == 33554432 ]] || fail "$1: wrong size"
    dd if=/dev/urandom of=/tmp/data bs=64k count=16 status=none
    dd if=/tmp/data of=/dev/nbd0 bs=64k seek=32 oflag=direct conv=fsync status=none
    cmp --bytes=1048576 /tmp/data <(dd if=/tmp/image bs=64k skip=32 count=16 status=none)
    nbd-client -d /dev/nbd0 >/dev/null
    echo "/dev/nbd0 against $1"
}

truncate --size 32M /tmp/image
qemu-nbd --format=raw --socket=/tmp/socket --persistent /tmp/image &
server=$!
check_server qemu-nbd
kill "$server"
wait "$server" || true
rm -f /tmp/socket
nbdkit --foreground --unix /tmp/socket file /tmp/image &
server=$!
check_server nbdkit
kill "$server"
