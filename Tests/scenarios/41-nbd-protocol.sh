#!/usr/bin/env bash
# The NBD protocol byte by byte: every option, command, flag and error, in all three kinds of headers;
# what is cut, wrong, too large, half-closed, slow or killed. One node alone, with 6 GiB of holes.
# timeout: 150
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib/scenario.sh"
. "$REPD_ROOT/scripts/lib/nodes.sh"

need_binary repd repctl
nodes=$scratch/nodes
tcp_port=$(free_port)
nodes_repd="nbd-listen 127.0.0.1:$tcp_port;"
nodes_configure C 6144
node_create_md a
node_up a
node_primary a --force
size=$(data_size "${node_disks[a]}")
socket=$nodes/a/r0/nbd.sock

# node_has_clients COUNT: at least so many use the export.
node_has_clients() { [[ $(node_ctl a status --json | grep -o '"inFlight"' | wc -l) -ge $1 ]]; }

echo "byte by byte"
"$python3" "$REPD_ROOT/scripts/lib/nbd_protocol.py" "$socket" "$size" || fail "see above: $(node_log a)"
echo "over TCP, what depends on the kind of socket"
"$python3" "$REPD_ROOT/scripts/lib/nbd_protocol.py" "127.0.0.1:$tcp_port" "$size" requests_in_pieces \
    a_client_that_has_finished_sending_gets_its_answers a_disconnect_comes_behind_what_was_asked \
    a_slow_reader_disturbs_nobody_and_gets_all \
    a_client_killed_with_128_requests_in_flight_disturbs_nobody || fail "see above: $(node_log a)"
node_is_alive a || fail "the daemon has died: $(node_log a 30)"

echo "reads of 32 MiB in one piece find room beside writers that always take it"
# Simple replies: all of a read's buffers are needed at once.
(cd "$nodes" && exec fio --name=busy --rw=randwrite --bs=256k --size=64M --offset=2g --offset_increment=64M \
    --numjobs=12 --iodepth=16 --time_based --runtime=25 --ioengine=nbd --uri="$(node_uri a)" >"$scratch/fio" 2>&1) &
writers=$!
scenario_pids+=("$writers")
wait_until 20 node_has_clients 12 || fail "the writers did not begin: $(cat "$scratch/fio")"
"$python3" - "$socket" "$REPD_ROOT/scripts/lib" <<'PYTHON' || fail "see above"
import sys

sys.path.insert(0, sys.argv[2])
import rawnbd

client = rawnbd.Client(sys.argv[1], "simple")
for _ in range(10):
    error, data = client.ask(rawnbd.READ, 0, 0, 32 << 20)
    assert error == 0 and len(data) == 32 << 20, error
PYTHON
kill -0 "$writers" 2>/dev/null || fail "they were done before ten such reads"
end_process "$writers"

echo "an orderly stop answers what still comes with ESHUTDOWN, and ends"
"$python3" - "$socket" "$scratch/ready" "$REPD_ROOT/scripts/lib" <<'PYTHON' &
import os
import sys

sys.path.insert(0, sys.argv[3])
import rawnbd


def write(mode):
    client = rawnbd.Client(sys.argv[1], mode)
    for number in range(64):
        client.send(rawnbd.WRITE, 0, number * 4096, payload=b"s" * 4096)
    open(f"{sys.argv[2]}.{mode}", "w").close()
    while True:
        ((error, _, message),) = client.answers(1).values()
        if error:
            break
        client.send(rawnbd.WRITE, 0, 0, payload=b"s" * 4096)
    assert error == rawnbd.ESHUTDOWN, (mode, error, message)
    assert mode == "simple" or message == "r0 is being demoted on a", (mode, message)
    left = len(client.requests)
    client.send(rawnbd.DISC)
    # Whatever was sent before is answered.
    client.answers(left)
    assert client.is_closed()


pids = []
for mode in ("simple", "structured", "extended"):
    pids.append(os.fork())
    if pids[-1] == 0:
        write(mode)
        sys.exit(0)
sys.exit(any(os.waitpid(pid, 0)[1] for pid in pids))
PYTHON
writer=$!
scenario_pids+=("$writer")
for mode in simple structured extended; do
    wait_until 20 test -e "$scratch/ready.$mode" || fail "the writer did not begin: $mode"
done
node_ctl a secondary --disconnect-clients
wait "$writer" || fail "the writers were not told"

echo "a Secondary says what it is; INFO, GO and the old option"
"$python3" - "$socket" "$REPD_ROOT/scripts/lib" <<'PYTHON' || fail "see above"
import struct
import sys

sys.path.insert(0, sys.argv[2])
import rawnbd

client = rawnbd.Client(sys.argv[1], name=None)
name = rawnbd.string(b"r0")
for option in rawnbd.OPT_INFO, rawnbd.OPT_GO:
    ((kind, text),) = client.option(option, name + struct.pack(">H", 0))
    # NBD_REP_ERR_POLICY
    assert kind == rawnbd.REP_ERR + 2 and text.startswith(b"r0 is Secondary on a"), (kind, text)
assert client.option(rawnbd.OPT_LIST)[-1][0] == rawnbd.REP_ACK
client.put(b"IHAVEOPT" + struct.pack(">II", rawnbd.OPT_EXPORT_NAME, 2) + b"r0")
assert client.is_closed()
PYTHON
node_down a
