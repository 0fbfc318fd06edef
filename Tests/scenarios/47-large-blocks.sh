#!/usr/bin/env bash
# A disk whose blocks have 4096 bytes, beside one of 512: requests in units of 512 arrive on both.
# timeout: 120
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib/scenario.sh"

need_binary repd repctl
nodes=$scratch/nodes
. "$REPD_ROOT/scripts/lib/nodes.sh"
# shellcheck source=scripts/lib/fio.sh
. "$REPD_ROOT/scripts/lib/fio.sh"

loop=''
detach_loop() {
    [[ -z $loop ]] || as_root losetup --detach "$loop" 2>/dev/null || true
    scenario_clean_up
}
trap detach_loop EXIT

mkdir -p "$nodes"
truncate --size 48M "$nodes/below.img"
loop=$(as_root losetup --find --show --sector-size 4096 --direct-io=on "$nodes/below.img") ||
    fail "no loop device with blocks of 4096 bytes"
node_disks=([b]=$loop)
nodes_configure C 48
node_create_md a
node_create_md b
node_up a
node_up b
node_wait a 'cs:Connected ro:Secondary/Secondary ds:Inconsistent/Inconsistent' 20 || fail "no connection"
node_primary a --force
node_wait a 'cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate' 30 || fail "no first sync"

# same TEXT: of both disks, when the Primary has been demoted.
same() { same_data "$nodes/a.img" "$loop" >/dev/null || fail "the disks differ $*"; }

echo "the Primary's disk has blocks of 512: writes, discards and zeroes of any sector"
uri=$(node_uri a)
fio_verify --size=8M --bsrange=512-16k --blockalign=512 --iodepth=32 --ioengine=nbd "--uri=$uri"
commands=(-c 'write -P 1 0 24M')
# All sectors of a few blocks at once: each is a change of the same block.
for ((sector = 1; sector < 64; sector++)); do
    commands+=(-c "aio_write -P $sector $((16 * 1024 * 1024 + sector * 512)) 512")
done
commands+=(-c aio_flush -c 'discard 2560 1536' -c 'discard 1049088 65536' -c 'write -z 2098176 4608'
    -c 'write -z -u 3145728 1000448' -c 'discard 4194816 512' -c 'discard 5M 64k' -c 'write -f -P 9 6292480 512' -c flush
    -c 'read -P 0 2560 1536' -c 'read -P 1 2048 512' -c 'read -P 1 4096 512' -c 'read -P 0 1049088 65536'
    -c 'read -P 1 1048576 512' -c 'read -P 1 1114624 512' -c 'read -P 0 2098176 4608' -c 'read -P 9 6292480 512')
timeout 60 qemu-io -f raw "${commands[@]}" "$uri" >"$nodes/io" 2>&1 || fail "$(cat "$nodes/io")"
if grep -Eqi 'fail|error' "$nodes/io"; then fail "$(grep -Ei 'fail|error' "$nodes/io")"; fi
node_ctl a secondary
same "after requests in units of 512"

echo "what was written without it comes in whole blocks, and requests then again in any units"
node_primary a
node_ctl b disconnect
node_wait a 'ro:Primary/Unknown' 10 || fail "a is still connected"
fio_verify --size=8M --bsrange=512-16k --blockalign=512 --iodepth=32 --ioengine=nbd "--uri=$uri"
node_ctl b connect
fio_verify --size=8M --bsrange=512-16k --blockalign=512 --iodepth=32 --ioengine=nbd "--uri=$uri"
node_wait a 'cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate' 30 || fail "no resync"
node_ctl a secondary
same "after a resync"

echo "as Primary it asks its clients for whole blocks"
node_primary b
uri=$(node_uri b)
[[ $(nbdinfo "$uri") == *'block_size_minimum: 4096'* ]] || fail "$(nbdinfo "$uri")"
"$python3" - "$uri" <<'ASK' || fail "an unaligned request is not refused"
import errno
import sys

import nbd

handle = nbd.NBD()
handle.set_strict_mode(0)
handle.connect_uri(sys.argv[1])
for ask in (lambda: handle.pread(512, 512), lambda: handle.pwrite(bytes(512), 0),
            lambda: handle.trim(512, 4096)):
    try:
        ask()
        sys.exit("it was carried out")
    except nbd.Error as error:
        if error.errnum != errno.EINVAL:
            sys.exit(str(error))
handle.pwrite(bytes(4096), 4096)
ASK
fio_verify --size=8M --bsrange=4k-64k --blockalign=4k --iodepth=16 --ioengine=nbd "--uri=$uri"
node_ctl b secondary
same "after it was Primary"

echo "killed under load, it copies what was active"
node_primary a
"$python3" "$REPD_ROOT/scripts/lib/records.py" write "$(node_uri a)" "$nodes/records" --blocks 4000 \
    --seconds 3 >"$nodes/writer" 2>&1 &
writer=$!
wait_until 10 node_writes || fail "the writer does not begin"
node_kill b
wait "$writer" || fail "the writer: $(cat "$nodes/writer")"
node_up b
node_wait a 'cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate' 30 || fail "no resync"
node_down a
node_down b
same "in the end"
same_metadata "$nodes/a.img" "$loop"
