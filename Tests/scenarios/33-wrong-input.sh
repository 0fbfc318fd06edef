#!/usr/bin/env bash
# What is wrong is refused with a text that helps and an exit status; nothing is lost, nobody dies.
# timeout: 240
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib/scenario.sh"
. "$REPD_ROOT/scripts/lib/nodes.sh"

need_binary repd repctl
nodes=$scratch/nodes
in_sync='cs:Connected ro:[A-Za-z/]* ds:UpToDate/UpToDate'

# with_configuration SED STATUS TEXT [COMMAND...]: the configuration of a, edited, is refused.
with_configuration() {
    local edit=$1 status=$2 text=$3
    shift 3
    [[ $# -gt 0 ]] || set -- up
    cp "$nodes/a.conf" "$nodes/a.good"
    sed -i "$edit" "$nodes/a.conf"
    node_refuses a "$status" "$text" "$@"
    mv "$nodes/a.good" "$nodes/a.conf"
}

says_incompatible() { grep -qi 'incompatible.*protocol' "$nodes/a.log" "$nodes/b.log"; }

# The checksum of the data, which nothing here may change.
data_sum() { head -c "$(data_size "${node_disks[a]}")" "${node_disks[a]}" | sha256sum; }

nodes_configure C 32
head -c 20000000 /dev/urandom | dd of="${node_disks[a]}" conv=notrunc status=none
node_create_md a
node_create_md b
before=$(data_sum)

echo "bad configurations are named by file and line, and start no daemon"
with_configuration 's/ping-int 1;/ping-int 1/' 10 "a.conf:5: Parse error"
with_configuration 's/ping-int 1;/ping-inter 1;/' 10 "a.conf:4"
with_configuration 's/protocol C;/protocol D;/' 10 "a.conf:3"
with_configuration "s,meta-disk internal,meta-disk ${node_disks[a]}," 10 "that is the disk itself"
with_configuration 's/meta-disk internal/meta-disk \/dev\/sdx [256]/' 10 "the places of a device are 0 to 255"
with_configuration 's/on b {/on a {/' 10 'a.conf'
[[ ! -e $nodes/a/r0/control.sock ]] || fail "a daemon runs"
output=$("$REPCTL" -c "$nodes/none.conf" --run-dir "$nodes/a" --node-name a up r0 2>&1) && fail "no file"
[[ $output == *none.conf* ]] || fail "the missing file is not named: $output"

echo "a disk that is missing, too small, without or with other meta data, or in use"
mv "$nodes/a.img" "$nodes/kept.img"
node_refuses a 1 "$nodes/a.img" up
# The daemon stays, and says so each time it is asked.
scenario_pids+=("$(cat "$nodes/a/r0/supervisor.pid")")
node_refuses a 20 "$nodes/a.img" create-md
truncate --size 60K "$nodes/a.img"
node_refuses a 10 "a.img" create-md --force
truncate --size 1M "$nodes/meta.img"
for place in /dev/zero "$nodes/missing.img" "$nodes/meta.img" "$nodes/meta.img [1]"; do
    case $place in
        /dev/zero) text="(105) Can not open meta device. /dev/zero: neither a file nor a block device" ;;
        *missing*) text="(105) Can not open meta device" ;;
        *']') text="slot 1 ends at byte 268435456, the device has 1048576 bytes" ;;
        *) text="(119) no valid meta data found" ;;
    esac
    with_configuration "s,meta-disk internal,meta-disk $place," 1 "$text"
done
truncate --size 32M "$nodes/a.img"
node_refuses a 1 "o valid meta data found" up
drbdmeta --force - v09 "$nodes/a.img" internal create-md 1 </dev/null >/dev/null 2>&1
node_refuses a 1 "meta data of format v09 found" up
head -c 33554432 /dev/urandom >"$nodes/a.img"
node_refuses a 1 "o valid meta data found" up
cp "$nodes/a.img" "$nodes/noise.img"
node_refuses a 1 "not waiting for confirmation" create-md
cmp "$nodes/a.img" "$nodes/noise.img" || fail "a refused create-md has written"
mv "$nodes/kept.img" "$nodes/a.img"
node_ctl a down
node_start a
node_ctl a up || fail "the good disk is not attached: $(node_log a)"
node_refuses a 20 "repctl down r0" create-md --force
sed -i "s#disk $nodes/b.img#disk $nodes/a.img#" "$nodes/b.conf"
node_start b
node_refuses b 1 "a.img" up
node_is_alive b || fail "the daemon has died"
nodes_configure C 32
node_down b

echo "an Inconsistent disk is not promoted, and its export is refused"
node_refuses a 17 '(-2) Need access to UpToDate data' primary
if nbdinfo "$(node_uri a)" >"$scratch/info" 2>&1; then fail "an Inconsistent disk is served"; fi
node_expect a 'cs:WFConnection ro:Secondary/Unknown ds:Inconsistent/DUnknown'

echo "strangers at the port where the peer is awaited; then the peer comes"
"$python3" "$REPD_ROOT/scripts/lib/junk.py" tcp "${node_ports[a]}" 100 >"$scratch/junk.log"
node_is_alive a || fail "the daemon has died: $(node_log a 30)"
node_up b
node_wait a 'cs:Connected ro:Secondary/Secondary ds:Inconsistent/Inconsistent' 30 || fail "no peer"
node_primary a --force
node_wait a "$in_sync" 30
node_refuses b 11 '(-1) Multiple primaries not allowed by config' primary
node_refuses a 17 '(-2) Need access to UpToDate data' detach

echo "settings that do not fit the peer's: refused with the name of the setting"
node_ctl a secondary
node_down b
nodes_configure A 32
node_up b
wait_until 20 says_incompatible || fail "no word about the protocol: $(node_log a) $(node_log b)"
node_down b
nodes_configure C 32
node_up b
node_ctl a connect 2>/dev/null || true
node_wait a "$in_sync" 30 || fail "no way back: $(node_log a)"
node_is_alive a || fail "the daemon has died"
[[ $(data_sum) == "$before" ]] || fail "the data has changed"
node_down a
node_down b
same_metadata "${node_disks[a]}" "${node_disks[b]}"
