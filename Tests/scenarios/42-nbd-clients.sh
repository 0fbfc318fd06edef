#!/usr/bin/env bash
# What NBD offers, as libnbd, nbdkit's tools, qemu and fio use it, on a pair: what they wrote through one
# node is on both. (Bytes that none of them would send: 41-nbd-protocol.)
# timeout: 200
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib/scenario.sh"
. "$REPD_ROOT/scripts/lib/nodes.sh"
. "$REPD_ROOT/scripts/lib/fio.sh"

need_binary repd repctl
nodes=$scratch/nodes
in_sync='cs:Connected ro:[A-Za-z/]* ds:UpToDate/UpToDate'
nodes_configure C 1056
node_create_md a
node_create_md b
node_up a
node_up b
node_primary a --force
size=$(data_size "${node_disks[a]}")
uri=$(node_uri a)

# What a script for nbdsh gets to know.
export URI=$uri SIZE=$size
URI_B=$(node_uri b)
export URI_B

# nbdsh_script: from standard input. The Python of libnbd is the system's own.
nbdsh_script() { PATH=/usr/bin:$PATH nbdsh -n -c - || fail "see above"; }

# qemu_map URI: qemu-img map as "START LENGTH data|zero", a line for each extent.
qemu_map() {
    qemu-img map -f raw --output=json "$1" |
        "$python3" -c 'import json, sys
for extent in json.load(sys.stdin):
    print(extent["start"], extent["length"], "data" if extent["data"] else "zero")'
}

echo "while a resync runs nothing is called a hole"
node_wait a 'cs:SyncSource' 20
# At the rate that is set it takes 5 s: longer than to ask.
nbdinfo --map --totals "$uri" >"$scratch/map"
node_expect a 'cs:SyncSource'
[[ $(awk '{ print $1, $3 }' "$scratch/map") == "$size 0" ]] || fail "holes: $(cat "$scratch/map")"
node_wait a "$in_sync" 60

echo "nbdsh: every option"
nbdsh_script <<'PYTHON'
import os
import sys
import nbd

uri_b, uri, size = os.environ["URI_B"], os.environ["URI"], int(os.environ["SIZE"])


def equal(found, wanted):
    if found != wanted:
        sys.exit(f"{found!r} is not {wanted!r}")


h = nbd.NBD()
h.set_opt_mode(True)
h.set_full_info(True)
h.connect_uri(uri)
exports = []
h.opt_list(lambda name, description: exports.append((name, description)))
equal(exports, [("r0", "repd resource r0 on a")])
contexts = []
h.opt_list_meta_context(contexts.append)
equal(contexts, ["base:allocation"])
h.add_meta_context("base:allocation")
h.add_meta_context("x-nobody:knows")
h.set_export_name("")
h.opt_info()
equal(h.get_canonical_export_name(), "r0")
equal(h.get_export_description(), "repd resource r0 on a")
equal(h.get_size(), size)
equal(h.get_block_size(nbd.SIZE_MINIMUM), 512)
equal(h.get_block_size(nbd.SIZE_PREFERRED), 4096)
equal(h.get_block_size(nbd.SIZE_MAXIMUM), 32 << 20)
h.opt_go()
equal(h.get_structured_replies_negotiated(), True)
equal([h.can_meta_context(name) for name in ("base:allocation", "x-nobody:knows")], [True, False])
for ability in "cache", "df", "fast_zero", "flush", "fua", "multi_conn", "trim", "zero":
    equal((ability, getattr(h, "can_" + ability)()), (ability, True))
equal((h.is_read_only(), h.is_rotational()), (False, False))
h.shutdown()

# Without structured replies there is neither of these.
h = nbd.NBD()
h.set_request_structured_replies(False)
h.add_meta_context("base:allocation")
h.connect_uri(uri)
equal((h.can_df(), h.can_meta_context("base:allocation")), (False, False))
h.pwrite(b"simple" + bytes(506), 0)
equal(h.pread(512, 0), b"simple" + bytes(506))
h.shutdown()

h = nbd.NBD()
h.set_opt_mode(True)
h.connect_uri(uri_b)
said = []
h.set_debug_callback(lambda context, text: said.append(text))
h.set_debug(True)
try:
    h.opt_go()
    sys.exit("a Secondary serves")
except nbd.Error:
    pass
if not any("r0 is Secondary on b" in text for text in said):
    sys.exit(f"a Secondary says {said}")
h.opt_abort()
PYTHON

echo "nbdsh: every command and flag, and the errors"
nbdsh_script <<'PYTHON'
import errno
import os
import sys
import nbd

size = int(os.environ["SIZE"])
h = nbd.NBD()
h.add_meta_context("base:allocation")
h.connect_uri(os.environ["URI"])
h.set_strict_mode(0)
MIB = 1 << 20


def equal(found, wanted):
    if found != wanted:
        sys.exit(f"{found!r:.300} is not {wanted!r:.300}")


def status(offset, length, flags=0):
    found = []
    h.block_status(length, offset, lambda name, place, extents, error: found.extend(extents), flags)
    return list(zip(found[::2], found[1::2]))


def refused(call, *codes):
    try:
        call()
    except nbd.Error as error:
        equal(error.errnum in codes, True)
        return
    sys.exit("it was done")


data = os.urandom(32 * MIB)
h.pwrite(data, 64 * MIB)
equal(h.pread(len(data), 64 * MIB), bytearray(data))
equal(h.pread(len(data), 64 * MIB, nbd.CMD_FLAG_DF), bytearray(data))
chunks = []
h.pread_structured(len(data), 64 * MIB, lambda part, offset, kind, error: chunks.append((offset, bytes(part))))
equal(b"".join(part for _, part in sorted(chunks)), data)
equal(len(chunks) > 1, True)
h.pwrite(data[:MIB], 256 * MIB, nbd.CMD_FLAG_FUA)
h.flush()
h.cache(MIB, 256 * MIB)
h.trim(MIB, 64 * MIB, nbd.CMD_FLAG_FUA)
equal(h.pread(MIB, 64 * MIB), bytearray(MIB))
equal(status(64 * MIB, MIB), [(MIB, nbd.STATE_HOLE | nbd.STATE_ZERO)])
equal(status(64 * MIB, 2 * MIB), [(MIB, 3), (MIB, 0)])
equal(status(64 * MIB, 2 * MIB, nbd.CMD_FLAG_REQ_ONE), [(MIB, 3)])
h.zero(MIB, 66 * MIB, nbd.CMD_FLAG_FAST_ZERO)
equal(h.pread(MIB, 66 * MIB), bytearray(MIB))
h.zero(MIB, 68 * MIB, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
equal(h.pread(MIB, 68 * MIB), bytearray(MIB))
# Fast and allocated: as fast as it was a moment ago, or not done at all.
before = h.pread(MIB, 70 * MIB)
try:
    h.zero(MIB, 70 * MIB, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FAST_ZERO)
    equal(h.pread(MIB, 70 * MIB), bytearray(MIB))
except nbd.Error as error:
    equal(error.errnum, errno.ENOTSUP)
    equal(h.pread(MIB, 70 * MIB), before)
page = bytes(4096)
refused(lambda: h.pread(4096, size), errno.EINVAL)
refused(lambda: h.pwrite(page, size), errno.ENOSPC)
refused(lambda: h.zero(4096, size), errno.ENOSPC)
refused(lambda: h.trim(4096, size), errno.EINVAL)
refused(lambda: h.cache(4096, size), errno.EINVAL)
refused(lambda: status(size, 4096), errno.EINVAL)
refused(lambda: h.pread(4096, 1), errno.EINVAL)
refused(lambda: h.pwrite(page[:1], 0), errno.EINVAL)
refused(lambda: h.pread(33 * MIB, 0), errno.EINVAL, errno.ERANGE)
refused(lambda: h.pread(512, 0, nbd.CMD_FLAG_REQ_ONE), errno.EINVAL)
refused(lambda: h.trim(512, 0, nbd.CMD_FLAG_FAST_ZERO), errno.EINVAL)
equal(h.pread(MIB, 256 * MIB), bytearray(data[:MIB]))
h.shutdown()
PYTHON

echo "nbdinfo --map and qemu-img map agree with the holes of the file"
qemu-io -f raw -c "discard 0 $size" "$uri" >/dev/null || qemu-io -f raw -c "write -z -u 0 $size" "$uri" >/dev/null
qemu-io -f raw -c 'write -P 0x11 1M 64k' -c 'write -P 0x22 512M 1M' -c 'write -P 0x33 768M 512' "$uri" >/dev/null
qemu_map "$uri" >"$scratch/map.qemu"
nbdinfo --map "$uri" | awk '{ print $1, $2, $3 == 3 ? "zero" : "data" }' >"$scratch/map.nbd"
diff "$scratch/map.qemu" "$scratch/map.nbd" || fail "the two maps differ"
awk '$3 == "data"' "$scratch/map.nbd" >"$scratch/data"
[[ $(wc -l <"$scratch/data") == 3 ]] || fail "data at $(cat "$scratch/data")"
awk '{ print $1 }' "$scratch/data" | diff - <(printf '%s\n' $((1 << 20)) $((512 << 20)) $((768 << 20))) ||
    fail "data at other places"
cmp -n "$size" "${node_disks[a]}" "${node_disks[b]}" || fail "the peer has something else"

echo "nbdcopy both ways with 1 GiB, over several connections, and by the map"
head -c 300M /dev/urandom >"$scratch/image"
truncate --size 700M "$scratch/image"
head -c 40M /dev/urandom >>"$scratch/image"
truncate --size 1G "$scratch/image"
nbdcopy --connections=4 "$scratch/image" "$uri"
nbdcopy --connections=4 --requests=16 "$uri" "$scratch/back"
truncate --size 1G "$scratch/back"
cmp "$scratch/image" "$scratch/back" || fail "it came back otherwise"
[[ $(du --block-size=1M "$scratch/back" | cut -f 1) -lt 600 ]] || fail "the holes were copied"
cmp -n "$((1 << 30))" "$scratch/image" "${node_disks[b]}" || fail "the peer has something else"
truncate --size "$size" "$scratch/image"
nbdcopy --no-extents --synchronous "$uri" - | cmp - "$scratch/image" || fail "synchronously it is otherwise"

echo "qemu-img info, compare, convert; qemu-io"
qemu-img info "$uri" | grep -q "virtual size.*$size bytes" || fail "qemu-img sees another size"
qemu-img compare -f raw -F raw "$scratch/image" "$uri" >/dev/null || fail "qemu-img: they differ"
qemu-img convert -m 16 -W -f raw -O qcow2 "$uri" "$scratch/copy.qcow2"
qemu-img compare -f raw -F qcow2 "$uri" "$scratch/copy.qcow2" >/dev/null || fail "convert: they differ"
[[ $(stat --format=%s "$scratch/copy.qcow2") -lt $((420 << 20)) ]] || fail "holes were converted as data"
qemu-img convert -n -m 16 -W -f qcow2 -O raw "$scratch/copy.qcow2" "$uri"
qemu-img compare -f raw -F raw "$scratch/image" "$uri" >/dev/null || fail "converted back: they differ"
rm "$scratch/image" "$scratch/back" "$scratch/copy.qcow2"
qemu-io -f raw -c 'write -P 0xab 1M 4M' -c 'discard 2M 1M' -c 'write -z -u 4M 512' -c 'write -f -P 0xcd 5000192 512' \
    -c flush -c 'read -P 0 4M 512' -c 'read -P 0xab 1M 1M' -c 'read -P 0xcd 5000192 512' \
    -c 'aio_write -P 0x77 8M 8M' -c 'aio_read -P 0xab 1M 1M' -c aio_flush -c 'read -P 0x77 8M 8M' \
    "$uri" >"$scratch/io" || fail "$(cat "$scratch/io")"
if grep -qi 'error\|fail' "$scratch/io"; then fail "$(cat "$scratch/io")"; fi

echo "fio with verify, depth 64, 16 connections"
mapfile -t target < <(nbd_of a)
fio_verify --numjobs=16 --iodepth=64 --size=4M --offset_increment=8M --group_reporting "${target[@]}"

node_ctl a secondary
same_data "${node_disks[a]}" "${node_disks[b]}" || fail "the disks differ"
node_down a
node_down b
