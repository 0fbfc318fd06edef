#!/usr/bin/env bash
# A volume of more than 4 GiB: discards and zeroes as large as the NBD protocol can name, as blkdiscard
# and mkfs send them through a kernel's client.
# timeout: 120
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib/scenario.sh"
. "$REPD_ROOT/scripts/lib/nodes.sh"

need_binary repd repctl
nodes=$scratch/nodes
nodes_configure C 5120
node_create_md a
node_up a
node_ctl a primary --force
echo "discards and zeroes of nearly 4 GiB"
"$python3" - "$(node_uri a)" <<'PYTHON' || fail "large requests"
import sys
import nbd

handle = nbd.NBD()
handle.set_strict_mode(0)
handle.connect_uri(sys.argv[1])
last = 0xFFFFF000
page = b"x" * 4096
for place in 0, last - 4096, last:
    handle.pwrite(page, place)
for call in handle.trim, handle.zero:
    handle.pwrite(page, last - 4096)
    call(last, 0)
    assert handle.pread(4096, 0) == bytes(4096)
    assert handle.pread(4096, last - 4096) == bytes(4096)
    assert handle.pread(4096, last) == page, "more than was asked for"
PYTHON
node_is_alive a || fail "the daemon has died: $(node_log a 20)"
node_ctl a secondary
node_down a
