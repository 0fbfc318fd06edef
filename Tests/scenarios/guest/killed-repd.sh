# Machine alpha of 21-kernel-killed: repd, first promoted in the other's place, then killed.
set -euo pipefail
. "$REPD_ROOT/scripts/lib/repd-and-kernel.sh"

node_hosts=([a]=10.77.0.1 [b]=10.77.0.2)
node_disks=([a]=/dev/vda [b]=/dev/vda)
nodes_configure C
node_create_md a
node_up a
pair_await writing 90
node_wait a 'cs:(WFConnection|Unconnected|NetworkFailure) ro:Secondary/Unknown' 30 ||
    fail "repd does not notice that the other machine is gone"
node_primary a
records verify "$(node_uri a)" /shared/acks-1 || fail "records of the dead kernel are lost"
records fill "$(node_uri a)" /shared/acks-2 --blocks 300 --journal
records verify "$(node_uri a)" /shared/acks-2 >/dev/null || fail "own records are lost"
pair_signal repd-promoted
node_wait a 'cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate' 90 || fail "no sync"
pair_await back
rm -f /shared/acks-3
"$python3" "$REPD_ROOT/scripts/lib/records.py" write "$(node_uri a)" /shared/acks-3 --journal \
    --may-fail &
writer=$!
wait_until 20 test -s /shared/acks-3 || fail "the writer does not start"
sleep "1.$RANDOM"
node_kill a
wait "$writer" || fail "the writer failed"
pair_signal repd-killed
pair_await kernel-promoted 90
node_up a
node_wait a "cs:Connected ro:Secondary/Primary ds:UpToDate/UpToDate" 60 || fail "no sync"
pair_signal repd-back
pair_await kernel-secondary
node_down a
pair_signal repd-down
