#!/usr/bin/env bash
# In the steady state a request allocates nothing: malloc is counted on both nodes over a fixed run.
# timeout: 120
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib/scenario.sh"

need_binary repd repctl
nodes=$scratch/nodes
. "$REPD_ROOT/scripts/lib/nodes.sh"

compiler=$(command -v clang || command -v cc) || fail "no C compiler, not even the toolchain's"
"$compiler" -shared -fPIC -O1 -o "$scratch/count.so" "$REPD_ROOT/scripts/lib/count_malloc.c"

# counted_start NODE: as node_start, and its allocations are counted.
counted_start() {
    truncate --size 8 "$scratch/count.$1"
    COUNT_MALLOC=$scratch/count.$1 LD_PRELOAD=$scratch/count.so \
        "$REPD_BIN/repd" r0 --run-dir "$nodes/$1" --node-name "$1" >>"$nodes/$1.log" 2>&1 </dev/null &
    node_pids[$1]=$!
    scenario_pids+=("$!")
    wait_until 15 node_answers "$1" || fail "the daemon of $1 does not answer: $(node_log "$1")"
    node_ctl "$1" up
}

nodes_configure C 64
make_equal_metadata "$nodes/a.img"
make_equal_metadata "$nodes/b.img"
counted_start a
counted_start b
node_wait a 'cs:Connected ro:Secondary/Secondary ds:UpToDate/UpToDate' 20 || fail "no pair"
node_primary a

# run PRIMARY WHAT DEPTH: a client that is there already; allocations while it wrote and read.
"$python3" - "$(node_uri a)" "$scratch/count.a" "$scratch/count.b" <<'RUN' || fail "see above"
import random
import struct
import sys

import nbd

uri, *files = sys.argv[1:]
REQUESTS = 20000
BLOCK = 4096


def counts():
    found = []
    for path in files:
        with open(path, "rb") as file:
            found.append(struct.unpack("<Q", file.read(8))[0])
    return found


handle = nbd.NBD()
handle.connect_uri(uri)
buffer = nbd.Buffer.from_bytearray(bytearray(random.randbytes(BLOCK)))
blocks = handle.get_size() // BLOCK
failed = 0


def go(requests, depth, reads):
    """So many requests, so many at a time; every hundredth write is followed by a flush."""
    global failed
    busy = 0

    def done(error):
        nonlocal busy
        global failed
        busy -= 1
        failed += error.value != 0
        return 1

    for number in range(requests):
        while busy >= depth:
            handle.poll(-1)
        place = random.randrange(blocks) * BLOCK
        busy += 1
        if number % 100 == 99:
            handle.aio_flush(done)
        elif reads:
            handle.aio_pread(nbd.Buffer(BLOCK), place, done)
        else:
            handle.aio_pwrite(buffer, place, done)
    while busy:
        handle.poll(-1)


bad = False
for reads in (False, True):
    for depth in (1, 32):
        # Whatever grows once has grown after this.
        go(REQUESTS // 4, depth, reads)
        before = counts()
        go(REQUESTS, depth, reads)
        made = [after - start for start, after in zip(before, counts())]
        what = "reads" if reads else "writes"
        print(f"{REQUESTS} {what} at depth {depth}: {made[0]} allocations on the Primary, "
              f"{made[1]} on the Secondary")
        # What happens once a second (pings, epochs that age) may allocate, requests may not.
        bad = bad or max(made) > REQUESTS // 1000
if failed:
    sys.exit(f"{failed} requests failed")
if min(counts()) < 100:
    sys.exit("nothing was counted")
sys.exit("a request allocates" if bad else 0)
RUN
node_down a
node_down b
