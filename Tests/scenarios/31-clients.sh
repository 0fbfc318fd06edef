#!/usr/bin/env bash
# Stock clients of the export, each against the others; and strangers at every port.
# timeout: 300
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib/scenario.sh"
. "$REPD_ROOT/scripts/lib/nodes.sh"
. "$REPD_ROOT/scripts/lib/fio.sh"

need_binary repd repctl
nodes=$scratch/nodes
in_sync='cs:Connected ro:[A-Za-z/]* ds:UpToDate/UpToDate'
tcp_port=$(free_port)

nodes_configure C
# One nbd-listen for the node that has it only.
sed -i "s/    repd {/    repd {\n        nbd-listen 127.0.0.1:$tcp_port;/" "$nodes/a.conf"
node_create_md a
node_create_md b
node_up a
node_up b
node_primary a --force
node_wait a "$in_sync" 30
size=$(data_size "${node_disks[a]}")
uri=$(node_uri a)
tcp=nbd://127.0.0.1:$tcp_port/r0

echo "nbdinfo: size, block sizes, what the export can do; the default export is volume 0"
nbdinfo --json "$uri" >"$scratch/info"
for wanted in "\"export-size\": $size," '"is_read_only": false' '"can_flush": true' '"can_fua": true' \
    '"can_trim": true' '"can_zero": true' '"block_size_minimum": 512' '"block_size_preferred": 4096'; do
    grep -qF "$wanted" "$scratch/info" || fail "nbdinfo does not say $wanted: $(cat "$scratch/info")"
done
[[ $(nbdinfo --size "nbd+unix:///?socket=$nodes/a/r0/nbd.sock") == "$size" ]] || fail "no default export"
[[ $(nbdinfo --size "$tcp") == "$size" ]] || fail "no export over TCP"
nbdinfo --list "$uri" | grep -q 'export="r0"' || fail "r0 is not listed"
if nbdinfo "nbd+unix:///r7?socket=$nodes/a/r0/nbd.sock" >"$scratch/info" 2>&1; then fail "r7 exists"; fi
echo "the Secondary lists, and refuses with its reason"
nbdinfo --list --no-content "$(node_uri b)" >"$scratch/info" 2>&1 || true
if LIBNBD_DEBUG=1 nbdinfo "$(node_uri b)" >"$scratch/info" 2>&1; then fail "a Secondary serves"; fi
grep -qi "r0.*Secondary" "$scratch/info" || fail "the refusal is '$(cat "$scratch/info")'"

echo "nbdcopy both ways, qemu-img compare and convert"
head -c "$size" /dev/urandom >"$scratch/image"
nbdcopy "$scratch/image" "$uri"
nbdcopy "$uri" "$scratch/back"
cmp "$scratch/image" "$scratch/back"
nbdcopy "$tcp" - | cmp - "$scratch/image"
qemu-img compare -f raw -F raw "$scratch/image" "$uri" >/dev/null
qemu-img info "$uri" | grep -q "virtual size.*$size bytes" || fail "qemu-img sees another size"
# Half of it zeroes: written as such, or trimmed.
head -c $((size / 2)) /dev/urandom >"$scratch/sparse"
truncate --size "$size" "$scratch/sparse"
qemu-img convert -n -f raw -O raw "$scratch/sparse" "$uri"
nbdcopy "$uri" - | cmp - "$scratch/sparse"
nbdcopy --destination-is-zero "$scratch/sparse" "$uri" 2>/dev/null
qemu-img compare -f raw -F raw "$scratch/sparse" "$tcp" >/dev/null
cmp --bytes="$size" "$scratch/sparse" "${node_disks[b]}" || fail "the Secondary has something else"

echo "qemu-io: trim and zeroes read as zeroes, on both nodes; FUA and flush"
qemu-io -f raw -c 'write -P 0xab 1M 4M' -c 'discard 2M 1M' -c 'write -z 3M 64k' -c 'write -z -u 4M 512' \
    -c 'write -f -P 0xcd 5000192 512' -c flush -c 'read -P 0 3M 64k' -c 'read -P 0 4M 512' \
    -c 'read -P 0xab 3212288 4096' -c 'read -P 0xcd 5000192 512' "$uri" >"$scratch/io" ||
    fail "$(cat "$scratch/io")"
if grep -qi 'error\|fail' "$scratch/io"; then fail "$(cat "$scratch/io")"; fi
nbdcopy "$uri" - | cmp - <(head -c "$size" "${node_disks[b]}") || fail "the peer has something else"

node_log_mark a
echo "requests that are not right are answered with an error, and the connection stays"
"$python3" - "$uri" "$size" <<'PYTHON' || fail "wrong requests"
import errno
import sys
import nbd

size = int(sys.argv[2])
handle = nbd.NBD()
handle.set_strict_mode(0)
handle.connect_uri(sys.argv[1])


def refused(name, call, *codes):
    try:
        call()
    except nbd.Error as error:
        if error.errnum in codes:
            return
        sys.exit(f"{name}: {error.string}")
    sys.exit(f"{name} was done")


page = bytes(4096)
refused("read beyond the end", lambda: handle.pread(4096, size), errno.EINVAL)
refused("read across the end", lambda: handle.pread(8192, size - 4096), errno.EINVAL)
refused("write beyond the end", lambda: handle.pwrite(page, size), errno.ENOSPC, errno.EINVAL)
refused("write of half a sector", lambda: handle.pwrite(page[:100], 0), errno.EINVAL)
refused("write at half a sector", lambda: handle.pwrite(page, 100), errno.EINVAL)
refused("trim beyond the end", lambda: handle.trim(8192, size - 4096), errno.EINVAL, errno.ENOSPC)
for length in 0xFFFFF000, 0xFFFC0000, 0x80000000:
    refused("trim of 4 GiB", lambda: handle.trim(length, 0), errno.EINVAL, errno.ENOSPC)
    refused("zeroes of 4 GiB", lambda: handle.zero(length, 0), errno.EINVAL, errno.ENOSPC)
refused("unknown flag", lambda: handle.pwrite(page, 0, 1 << 12), errno.EINVAL)
handle.pwrite(page, size - 4096)
handle.pread(512, size - 512)
handle.shutdown()
PYTHON

echo "clients that read no answers: they are dropped when others need what they hold"
timeout 100 "$python3" - "$uri" <<'PYTHON' || fail "somebody else's silence holds a client up"
import os
import socket
import struct
import sys
import nbd

def connected():
    handle = nbd.NBD()
    handle.connect_uri(sys.argv[1])
    return handle

healthy = connected()
silent = []
for _ in range(3):
    handle = connected()
    client = socket.socket(fileno=os.dup(handle.aio_get_fd()))
    client.setblocking(False)
    try:
        for cookie in range(700):
            client.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, cookie, 0, 65536))
    except BlockingIOError:
        pass
    silent.append((handle, client))
healthy.pwrite(bytes(1 << 20), 0)
connected().pwrite(bytes(1 << 20), 1 << 20)
PYTHON
node_log_since a 'has not read its answers' | grep -q . || fail "nobody was dropped"

echo "fio's nbd engine with verify, four clients at once"
mapfile -t target < <(nbd_of a)
fio_verify --numjobs=4 --size=6M --offset_increment=8M --group_reporting "${target[@]}"
fio_verify --size=6M --bsrange=512-4k --blockalign=512 "${target[@]}"

echo "strangers at the peer's port, at the export and at the control socket"
node_log_mark a
"$python3" "$REPD_ROOT/scripts/lib/records.py" write "$uri" "$scratch/records" --rate 300 \
    >"$scratch/records.log" 2>&1 &
writer=$!
scenario_pids+=("$writer")
junk() { "$python3" "$REPD_ROOT/scripts/lib/junk.py" "$@" >"$scratch/junk.log" || fail "$* hung up"; }
for node in a b; do
    # Not only at random: what gets far looks like a peer.
    junk tcp "${node_ports[$node]}" 120
    junk unix "$nodes/$node/r0/nbd.sock" 180
    junk unix "$nodes/$node/r0/control.sock" 40
    node_is_alive "$node" || fail "the daemon of $node has died: $(node_log "$node" 30)"
done
junk tcp "$tcp_port" 180
kill -TERM "$writer"
wait "$writer" || fail "the client noticed: $(cat "$scratch/records.log")"
node_wait a "$in_sync" 20 || fail "strangers have parted the nodes for ever"
records verify "$uri" "$scratch/records" >/dev/null || fail "records are lost"
echo "  $(cat "$scratch/records.log"); $(node_log_since a 'Connected ->' | wc -l) disconnections"

node_ctl a secondary
same_data "${node_disks[a]}" "${node_disks[b]}" || fail "the disks differ"
node_down a
node_down b
same_metadata "${node_disks[a]}" "${node_disks[b]}"
