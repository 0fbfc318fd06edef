#!/usr/bin/env bash
# repctl from new disks to the end of both daemons: two nodes on one machine, with a stock client.
# timeout: 240
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib/scenario.sh"
need_binary repctl repd

write_configuration() {
    cat >"$scratch/repd.conf" <<CONF
common { net { timeout 50; } }
resource r0 {
    net { ${1:-} }
    # Slow enough for the first copy to be seen.
    disk { c-max-rate 100M; }
    startup { wfc-timeout 20; }
    on alice { device /dev/drbd0; disk $scratch/alice.disk;
        address 127.0.0.1:$port_alice; meta-disk internal; }
    on bob { device /dev/drbd0; disk $scratch/bob.disk;
        address 127.0.0.1:$port_bob; meta-disk internal; }
}
CONF
}

# node NAME COMMAND...: repctl on one of the nodes; standard error is in $scratch/errors.
node() {
    local name=$1
    shift
    "$REPD_BIN/repctl" -c "$scratch/repd.conf" --run-dir "$scratch/$name" --node-name "$name" \
        "$@" 2>"$scratch/errors"
}

# up NAME: and remembers the daemon, so that it ends with the scenario.
up() {
    node "$1" up r0 || fail "up on $1: $(cat "$scratch/errors")"
    scenario_pids+=("$(cat "$scratch/$1/r0/supervisor.pid")")
}

# expect TEXT NAME COMMAND...: what repctl prints.
expect() {
    local wanted=$1 found
    shift
    found=$(node "$@") || fail "$*: $(cat "$scratch/errors")"
    [[ $found == "$wanted" ]] || fail "$*: '$found', not '$wanted'"
}

# refused STATUS TEXT NAME COMMAND...: the exit status, and a part of what is said.
refused() {
    local wanted=$1 text=$2 status=0
    shift 2
    node "$@" >"$scratch/output" || status=$?
    [[ $status == "$wanted" ]] || fail "$*: exit status $status, not $wanted"
    grep -qF -- "$text" "$scratch/errors" || fail "$*: said '$(cat "$scratch/errors")'"
}

# A dump without its comments and without the flags, which drbdmeta does not tell.
comparable() { sed -e '/^#/d' -e 's/flags 0x[0-9A-F]*;//'; }

uri() { echo "nbd+unix:///r0?socket=$scratch/$1/r0/nbd.sock"; }

port_alice=$(free_port) port_bob=$(free_port)
write_configuration
truncate -s 256M "$scratch/alice.disk" "$scratch/bob.disk"

echo "without daemons, commands say so"
refused 10 '0: Failure: (127) Device minor not allocated' alice role r0
[[ $(cat "$scratch/output") == Unconfigured ]] || fail "role printed $(cat "$scratch/output")"
refused 10 'r0: Failure: (158) Unknown resource' alice connect r0
refused 10 'r0: No such resource' alice status r0
refused 1 "'r1' not defined in your config" alice up r1
refused 1 "This node is 'carol'" carol up r0
expect '' alice down all
expect '' alice status
touch "$scratch/file"
status=0
"$REPD_BIN/repctl" --run-dir "$scratch/file" status 2>"$scratch/errors" || status=$?
[[ $status == 10 ]] || fail "a run directory that is none: exit status $status"
grep -q 'Not a directory' "$scratch/errors" || fail "it is said: $(cat "$scratch/errors")"
expect '' alice wait-sync r0
grep -q 'r0: no repd is running' "$scratch/errors" || fail "wait-sync says $(cat "$scratch/errors")"
sed "s/:$port_bob;/:$port_alice;/" "$scratch/repd.conf" >"$scratch/wrong.conf"
if "$REPD_BIN/repctl" -c "$scratch/wrong.conf" --node-name alice dump r0 >"$scratch/output" 2>&1 ||
    "$REPD_BIN/repctl" -c "$scratch/wrong.conf" --run-dir "$scratch/alice" --node-name alice up r0 \
        >"$scratch/output" 2>&1; then
    fail "two nodes with one address are accepted"
fi
grep -q 'both nodes have the address' "$scratch/output" || fail "it is said: $(cat "$scratch/output")"

echo "meta data are made once, and again only when told"
node alice create-md r0 >"$scratch/output" || fail "create-md: $(cat "$scratch/errors")"
grep -q 'successfully created' "$scratch/output"
refused 1 'not waiting for confirmation' alice create-md r0
node alice create-md --force r0 >/dev/null
node bob create-md r0 >/dev/null
node alice dump-md r0 | comparable >"$scratch/output"
drbdmeta --force - v08 "$scratch/alice.disk" internal dump-md </dev/null 2>/dev/null | comparable |
    diff "$scratch/output" - || fail "drbdmeta dumps something else"
expect Inconsistent alice dstate r0

echo "up starts a daemon, which waits for its peer"
up alice
expect Secondary/Unknown alice role r0
expect WFConnection alice cstate r0
expect Inconsistent/DUnknown alice dstate r0
expect '' alice up r0
refused 20 "Device '0' is configured!" alice create-md --force r0
refused 17 '(-2) Need access to UpToDate data' alice primary r0
refused 5 'time-out in state WFConnection (cannot connect to ' alice wait-connect --timeout 1 r0
[[ -z $(find "/proc/$(cat "$scratch/alice/r0/repd.pid")/fd" -lname "$scratch/errors") ]] ||
    fail "the daemon has our standard error"
up bob
expect '' bob wait-connect r0
expect Secondary/Secondary alice role r0
expect Inconsistent/Inconsistent bob dstate all

echo "the first copy has progress in proc, and wait-sync shows it as lines"
refused 17 '(-2)' alice primary r0
expect '' alice primary --force r0
copying() {
    node alice proc >"$scratch/output"
    grep -q '^ 0: cs:SyncSource' "$scratch/output"
}
wait_until 10 copying || fail "proc: $(cat "$scratch/output")"
grep -q '^ 0: cs:SyncSource ro:Primary/Secondary ds:UpToDate/Inconsistent C r-----$' "$scratch/output" ||
    fail "proc: $(cat "$scratch/output")"
grep -q "^"$'\t'"\[[=>.]*\] sync'ed: *[0-9.]*% ([0-9]*/[0-9]*)K\$" "$scratch/output" ||
    fail "proc: $(cat "$scratch/output")"
expect '' bob wait-sync r0
grep -q '^r0: \[[=>.]*\] [0-9.]*% finish: ' "$scratch/errors" ||
    fail "wait-sync: $(cat "$scratch/errors")"
# The source hears of the end a moment later.
expect '' alice wait-sync r0
expect UpToDate/UpToDate alice dstate r0
expect Primary/Secondary alice role r0
node alice proc >"$scratch/output"
[[ $(sed -n 3p "$scratch/output") == ' 0: cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate C r-----' ]] ||
    fail "proc: $(cat "$scratch/output")"
node bob status --json | /usr/bin/python3 -c '
import json, sys
[resource] = json.load(sys.stdin)
[volume] = resource["volumes"]
assert (resource["node"], volume["connection"], volume["outOfSync"]) == ("bob", "Connected", 0)'

echo "a command whose sender has given up is not carried out later"
node alice secondary r0 || fail "secondary: $(cat "$scratch/errors")"
kill -STOP "$(cat "$scratch/bob/r0/repd.pid")"
status=0
timeout 1 "$REPD_BIN/repctl" -c "$scratch/repd.conf" --run-dir "$scratch/bob" --node-name bob \
    primary r0 >"$scratch/output" 2>&1 || status=$?
kill -CONT "$(cat "$scratch/bob/r0/repd.pid")"
[[ $status == 124 ]] || fail "a daemon that is stopped answers: $status $(cat "$scratch/output")"
expect '' bob wait-connect r0
expect Secondary/Secondary bob role r0
expect '' alice wait-connect r0
expect '' alice primary r0

echo "a client keeps its node Primary until it is sent away"
refused 11 '(-1) Multiple primaries not allowed by config' bob primary r0
head -c 1048576 /dev/urandom >"$scratch/pattern"
nbdcopy "$scratch/pattern" "$(uri alice)"
mkfifo "$scratch/client-goes"
# shellcheck disable=SC2016
background /usr/bin/python3 -c '
import sys, nbd
client = nbd.NBD()
client.connect_uri(sys.argv[1])
open(sys.argv[2], "w").write("ready")
open(sys.argv[3]).read()' "$(uri alice)" "$scratch/client-ready" "$scratch/client-goes"
wait_until 10 test -s "$scratch/client-ready" || fail "the client does not connect"
refused 11 '(-12) Device is held open by someone' alice secondary r0
refused 11 '(-12) Device is held open by someone' alice down r0
expect Primary/Secondary alice role r0
expect '' alice secondary --disconnect-clients r0
expect Secondary/Secondary alice role r0

echo "the roles change, and the data are there"
expect '' bob primary r0
nbdcopy "$(uri bob)" "$scratch/copy"
cmp -n 1048576 "$scratch/pattern" "$scratch/copy" || fail "bob has other data"

echo "what both nodes have to agree on and repd cannot do is refused by name"
expect '' alice disconnect r0
expect StandAlone alice cstate r0
write_configuration 'verify-alg sha1;'
refused 10 "'verify-alg sha1'" alice connect r0
write_configuration
expect '' alice connect r0
expect '' alice wait-connect r0
expect '' alice wait-sync r0

echo "a disk is outdated by hand, and only the peer makes it good again"
refused 11 '(-6) Refusing to be Outdated while Connected' alice outdate r0
refused 17 '(-2) Need access to UpToDate data' bob outdate r0
expect '' alice disconnect r0
expect '' alice outdate r0
expect '' alice outdate r0
expect Outdated/DUnknown alice dstate r0
refused 17 '(-2) Need access to UpToDate data' alice primary r0
expect '' alice down r0
expect Outdated alice dstate r0
up alice
expect '' alice wait-connect r0
expect '' alice wait-sync r0
expect UpToDate/UpToDate alice dstate r0

echo "a daemon that is killed with its supervisor is told, and up starts it again"
alice_pid=$(cat "$scratch/alice/r0/repd.pid")
kill -KILL "$(cat "$scratch/alice/r0/supervisor.pid")" "$alice_pid"
wait_until 10 process_is_gone "$alice_pid" || fail "it does not die"
refused 10 'its repd died' alice status
refused 10 'its repd died' alice proc
expect '' alice down r0
expect '' alice status
up alice
expect '' alice wait-connect r0
expect '' alice wait-sync r0
expect UpToDate/UpToDate alice dstate r0

echo "down ends the processes and leaves nothing that looks like one"
alice_pid=$(cat "$scratch/alice/r0/repd.pid") bob_pid=$(cat "$scratch/bob/r0/repd.pid")
expect '' alice down all
process_is_gone "$alice_pid" || fail "down returned before the daemon was gone"
expect '' bob down r0
process_is_gone "$bob_pid" || fail "down returned before the daemon was gone"
expect '' bob down r0
[[ $(find "$scratch/alice" "$scratch/bob" -type s) == '' ]] || fail "sockets are left"
expect Consistent bob dstate r0
