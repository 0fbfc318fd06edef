#!/usr/bin/env bash
# Stopped processes, a full or deleted run directory, disks that fill up, shrink, vanish or become
# read-only, disks that come and go under load: nothing acknowledged is lost, and words say what to do.
# timeout: 240
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib/scenario.sh"

need_binary repd repctl
nodes=$scratch/nodes
. "$REPD_ROOT/scripts/lib/nodes.sh"
loop=''

unmount() {
    local process directory node
    for node in a b; do
        # Also those of a command that failed.
        for process in $(cat "$nodes/$node"/r0/*.pid 2>/dev/null || true); do scenario_pids+=("$process"); done
    done
    for process in "${scenario_pids[@]}"; do kill -CONT "$process" 2>/dev/null || true; done
    # What is mounted there stays.
    scenario_clean_up 2>/dev/null || true
    if [[ -n $loop ]]; then
        # It would stay so for whoever gets it next.
        blockdev --setrw "$loop" || true
        losetup --detach "$loop" || true
    fi
    for directory in a disk meta; do umount --lazy "$nodes/$directory" 2>/dev/null || true; done
    rm -rf "$scratch"
}
trap unmount EXIT

supervisor() { cat "$nodes/$1/r0/supervisor.pid"; }
engine() { cat "$nodes/$1/r0/repd.pid"; }

# supervised_up NODE
supervised_up() {
    node_ctl "$1" up || fail "up of $1: $(log "$1")"
    scenario_pids+=("$(supervisor "$1")" "$(engine "$1")")
}
log() { tail -n "${2:-15}" "$nodes/$1/r0/log" | cut -c 1-200; }
# says NODE TEXT: its log, sooner or later.
says() { wait_until 10 grep -qF "$2" "$nodes/$1/r0/log" || fail "$1 does not say '$2': $(log "$1")"; }

# step NODE ROLES: it is Connected, both disks are UpToDate.
step() { wait_until 30 node_has_state "$1" "cs:Connected ro:$2 ds:UpToDate/UpToDate" ||
    fail "$1 is not $2 and in step but $(node_status "$1"): $(log "$1" 25)"; }
state() { wait_until 15 node_has_state "$1" "$2" || fail "$1 is not $2 but $(node_status "$1"): $(log "$1")"; }

# A client that writes until it is told to end, or until it sees an error.
writes() {
    "$python3" "$REPD_ROOT/scripts/lib/records.py" write "$(node_uri "$1")" "$nodes/records" \
        --rate 400 --seconds 60 "${@:2}" >"$nodes/writer" 2>&1 &
    writer=$!
    scenario_pids+=("$writer")
    unset node_wrote
    wait_until 10 node_writes "$1" || fail "the writer does not begin: $(cat "$nodes/writer")"
}
writer_ends() {
    kill -TERM "$writer" 2>/dev/null || true
    wait "$writer" || fail "the writer saw an error: $(cat "$nodes/writer")"
}
# still_writes NODE
still_writes() {
    unset node_wrote
    wait_until 10 node_writes "$1" || fail "nothing is written to $1 any more: $(cat "$nodes/writer")"
}
writer_fails() {
    local status=0
    wait "$writer" || status=$?
    [[ $status != 0 ]] || fail "the writer sees no error: $(cat "$nodes/writer")"
}
fill() {
    records fill "$(node_uri "$1")" "$nodes/records" "${@:2}" >/dev/null || fail "the client of $1 sees an error"
}

# all_is_there PRIMARY: both disks are equal and hold every record; nobody is Primary afterwards.
all_is_there() {
    node_ctl "$1" secondary || fail "secondary of $1"
    step "$1" Secondary/Secondary
    records verify "${node_disks[a]}" "$nodes/records" >/dev/null || fail "records are lost on a"
    records verify "${node_disks[b]}" "$nodes/records" >/dev/null || fail "records are lost on b"
    cmp --bytes="$(data_size "${node_disks[b]}")" "${node_disks[a]}" "${node_disks[b]}" || fail "the disks differ"
}

# fill_up DIRECTORY: its file system.
fill_up() {
    dd if=/dev/zero of="$1/ballast" bs=4k 2>/dev/null || true
    [[ $(df --output=avail "$1" | tail -n 1) -eq 0 ]] || fail "$1 is not full"
}
make_room() { rm "$1/ballast"; }

# refused NODE EXIT_STATUS TEXT COMMAND...: as node_refuses, with several texts between bars.
refused() {
    local text output status=0 texts
    output=$(node_ctl "$1" "${@:4}" 2>&1 </dev/null) || status=$?
    [[ $status == "$2" ]] || fail "'${*:4}' on $1: exit status $status, not $2: $output"
    IFS='|' read -r -a texts <<<"$3"
    for text in "${texts[@]}"; do
        [[ $output == *"$text"* ]] || fail "'${*:4}' on $1 says '$output', not '$text'"
    done
}

mkdir -p "$nodes/a" "$nodes/b" "$nodes/disk" "$nodes/meta"
mount -t tmpfs -o size=256k tmpfs "$nodes/a"
mount -t tmpfs -o size=48M tmpfs "$nodes/disk"
mount -t tmpfs -o size=1M tmpfs "$nodes/meta"
truncate --size 32M "$nodes/disk/a.img" "$nodes/b.img"
node_disks=([a]=$nodes/disk/a.img [b]=$nodes/b.img)
nodes_repd='resume-limit 1000;'
nodes_configure C 32
make_equal_metadata "${node_disks[a]}"
make_equal_metadata "${node_disks[b]}"

# It takes as long as a question may take; the answers are looked at further below.
ask_stopped() { "$REPCTL" -c "$nodes/a.conf" --run-dir "$nodes/alone" --node-name a "$@" r0; }
"$REPD_BIN/repd" r0 --supervise --run-dir "$nodes/alone" --node-name a >"$nodes/alone.log" 2>&1 </dev/null &
scenario_pids+=("$!")
wait_until 15 ask_stopped role >/dev/null 2>&1 || fail "no daemon: $(cat "$nodes/alone.log")"
stopped=$(cat "$nodes/alone/r0/repd.pid")
scenario_pids+=("$stopped")
kill -STOP "$stopped"
ask_stopped role >"$nodes/stopped-role" 2>&1 &
stopped_role=$!
ask_stopped down >"$nodes/stopped-down" 2>&1 &
stopped_down=$!
scenario_pids+=("$stopped_role" "$stopped_down")

supervised_up a
supervised_up b
step a Secondary/Secondary

echo "the Primary is stopped for longer than its peer waits: its client sees a pause, and what was missed is copied"
node_primary a
fill a --blocks 500
writes a --blocks 500
process=$(engine a)
kill -STOP "$process"
state b 'cs:WFConnection ro:Secondary/Unknown'
refused b 0 Secondary/Unknown role
kill -CONT "$process"
still_writes a
step a Primary/Secondary
writer_ends
all_is_there a

echo "the Secondary is stopped: the Primary goes on alone, and the Secondary gets what it missed"
node_primary a
writes a --blocks 500
process=$(engine b)
kill -STOP "$process"
state a 'cs:WFConnection ro:Primary/Unknown'
still_writes a
kill -CONT "$process"
step a Primary/Secondary
writer_ends
all_is_there a

echo "promoted while the Primary is stopped: both learn that they were both written"
node_primary a
fill a --blocks 10
process=$(engine a)
kill -STOP "$process"
state b 'cs:WFConnection ro:Secondary/Unknown'
node_primary b
cp "$nodes/records" "$nodes/records.a"
fill b --blocks 20
cp "$nodes/records" "$nodes/records.b"
kill -CONT "$process"
# A write under no connection, or under the one that is dead without its knowledge.
cp "$nodes/records.a" "$nodes/records"
fill a --blocks 10
for node in a b; do state "$node" 'cs:StandAlone ro:Primary/Unknown|cs:WFConnection ro:Primary/Unknown'; done
says a 'split brain detected but unresolved'
[[ $(engine a) == "$process" ]] || fail "the engine of a died"
node_ctl a disconnect >/dev/null 2>&1 || true
node_ctl a secondary || fail "secondary of the victim"
node_ctl a connect --discard-my-data || fail "connect of the victim"
node_ctl b connect >/dev/null 2>&1 || true
step b Primary/Secondary
cp "$nodes/records.b" "$nodes/records"
all_is_there b

echo "the supervisor is stopped and the engine killed: the client waits until it is started again"
node_primary a
writes a --blocks 500 --reconnect 20
kill -STOP "$(supervisor a)"
process=$(engine a)
kill -KILL "$process"
wait_until 10 process_is_gone "$process" || fail "the engine does not die"
node_ctl a role >"$nodes/role" 2>&1 &
asker=$!
state b 'cs:WFConnection ro:Secondary/Unknown'
kill -CONT "$(supervisor a)"
wait "$asker" || fail "role: $(cat "$nodes/role")"
grep -q '^Primary/' "$nodes/role" || fail "the role is $(cat "$nodes/role")"
still_writes a
step a Primary/Secondary
writer_ends
all_is_there a

echo "a command whose daemon is stopped says so after two seconds, and fails in its time"
wait_until 5 grep -qF "r0: waiting for repd (pid $stopped): pid $stopped is stopped, 'kill -CONT $stopped'" \
    "$nodes/stopped-down" || fail "down says '$(cat "$nodes/stopped-down")'"
kill -0 "$stopped_down" 2>/dev/null || fail "down does not wait: $(cat "$nodes/stopped-down")"
status=0
wait "$stopped_role" || status=$?
[[ $status == 10 ]] || fail "role of a stopped daemon: $status"
grep -qF "repd did not answer within 15 s: pid $stopped is stopped, 'kill -CONT $stopped' lets it go on" \
    "$nodes/stopped-role" || fail "role says '$(cat "$nodes/stopped-role")'"
kill -CONT "$stopped"
wait "$stopped_down" || fail "down after the stop: $(cat "$nodes/stopped-down")"
wait_until 10 process_is_gone "$stopped" || fail "down leaves the daemon"

role_record=$nodes/a/r0/role
kill_engine() {
    local process
    process=$(engine "$1")
    kill -KILL "$process"
    wait_until 10 process_is_gone "$process" || fail "the engine does not die"
    role=$(node_ctl "$1" role 2>&1) || fail "role: $role"
    scenario_pids+=("$(engine "$1")")
}

echo "the run directory is full: a promotion works and says what is missing, and nobody is Primary by mistake"
fill_up "$nodes/a"
refused a 0 "No space left on device|make room in $nodes/a/r0" primary
[[ ! -e $role_record ]] || fail "half of a record: $(cat "$role_record")"
node_expect a 'ro:Primary/Secondary'
kill_engine a
[[ $role == Secondary/* ]] || fail "Primary without a record"
step a Secondary/Secondary
node_ctl a disconnect || fail "disconnect with a full directory"
kill_engine a
node_expect a 'cs:StandAlone ro:Secondary/Unknown ds:UpToDate'
node_ctl a connect || fail "connect with a full directory"
step a Secondary/Secondary
kill_engine a
step a Secondary/Secondary
node_primary a
fill a --blocks 100
node_ctl a secondary || fail "demotion with a full directory"
[[ ! -e $role_record ]] || fail "a record of a Secondary"

echo "there is space again: the record is made up for, and a Primary that dies is Primary again"
node_primary a
[[ ! -e $role_record ]] || fail "the directory is not full"
make_room "$nodes/a"
wait_until 10 test -s "$role_record" || fail "no record although there is space: $(log a)"
writes a --blocks 500 --reconnect 20
kill_engine a
[[ $role == Primary/* ]] || fail "the role is $role"
still_writes a
writer_ends
# A record that is there is changed in its place.
fill_up "$nodes/a"
kill_engine a
[[ $role == Primary/* ]] || fail "the role is $role"
step a Primary/Secondary
all_is_there a

echo "up with a full directory works, or names it"
node_ctl a down || fail "down with a full directory"
rm -rf "$nodes/a/r0"
rm "$nodes/a/ballast"
fill_up "$nodes/a"
if output=$(node_ctl a up 2>&1); then
    scenario_pids+=("$(supervisor a)" "$(engine a)")
else
    [[ $output == *"$nodes/a"*'No space left on device'* ]] || fail "up says '$output'"
fi
make_room "$nodes/a"
supervised_up a
step a Secondary/Secondary

echo "the run directory is deleted: clients are served, commands name the process, its death brings no Primary"
node_primary a
fill a --blocks 500
writes a --blocks 500
process=$(engine a)
parent=$(supervisor a)
rm -rf "$nodes/a/r0"
unset node_wrote
wait_until 10 node_writes b || fail "nothing is written any more: $(cat "$nodes/writer")"
for command in role secondary primary up down; do
    refused a 10 "repd (pid $parent) runs|$nodes/a/r0/control.sock was deleted|'kill $parent'|'repctl up r0'" \
        "$command"
done
kill -0 "$process" || fail "a command killed the engine"
kill -KILL "$process"
for process in "$process" "$parent"; do
    wait_until 10 process_is_gone "$process" || fail "process $process goes on where nobody finds it"
done
writer_fails
supervised_up a
step a Secondary/Secondary
all_is_there a

echo "deleted again: down --force ends it, and up works"
node_primary a
fill a --blocks 500
parent=$(supervisor a)
process=$(engine a)
rm -rf "$nodes/a/r0"
node_ctl a down --force || fail "down --force"
for process in "$process" "$parent"; do process_is_gone "$process" || fail "process $process goes on"; done
supervised_up a
step a Secondary/Secondary
all_is_there a

echo "deleted when its supervisor is dead: the engine is named, and no second one is started beside it"
node_primary a
fill a --blocks 500
process=$(engine a)
end_process "$(supervisor a)" KILL
rm -rf "$nodes/a/r0"
refused a 10 "repd (pid $process) runs|'kill $process'" up
kill -KILL "$process"
wait_until 10 process_is_gone "$process" || fail "the engine does not die"
supervised_up a
step a Secondary/Secondary
all_is_there a

echo "detached, attached, detached again under load: the client sees nothing, a late attach gets the rest"
node_primary b
writes b --blocks 500
for _ in 1 2; do
    node_ctl a detach || fail "detach under load: $(log a)"
    state b 'cs:Connected ro:Primary/Secondary ds:UpToDate/Diskless'
    still_writes b
    node_ctl a attach || fail "attach under load: $(log a)"
    step b Primary/Secondary
done
node_refuses b 17 'make it Secondary first' detach
node_ctl a detach
node_ctl a disconnect
still_writes b
node_ctl a connect
state b 'cs:Connected ro:Primary/Secondary ds:UpToDate/Diskless'
still_writes b
node_ctl a attach || fail "late attach: $(log a)"
step b Primary/Secondary
writer_ends
all_is_there b

# again NODE: its disk is attached, and gets what it missed.
again() {
    node_ctl "$1" attach || fail "attach of $1: $(log "$1")"
    state "$1" 'cs:Connected .*ds:UpToDate/UpToDate'
}

echo "the Secondary's disk is full: the Primary's client sees nothing"
node_primary b
fill b --blocks 500
fill_up "$nodes/disk"
writes b --first 1000 --blocks 500
state b 'ds:UpToDate/Diskless'
still_writes b
says a 'No space left on device'
make_room "$nodes/disk"
again a
writer_ends
all_is_there b

echo "the disk of the Primary of a pair is full: an error, and the peer has every record"
node_primary a
fill a --blocks 500
fill_up "$nodes/disk"
writes a --first 2000 --blocks 500
writer_fails
state a 'ro:Primary/Secondary ds:Diskless/UpToDate'
node_ctl a secondary || fail "a Primary without disk cannot be demoted"
node_primary b
records verify "$(node_uri b)" "$nodes/records" >/dev/null || fail "records are lost"
make_room "$nodes/disk"
again a
all_is_there b

echo "the disk of a Primary that is alone is full: an error, and nothing is lost"
node_ctl b disconnect
node_primary a
fill a --blocks 500
fill_up "$nodes/disk"
writes a --first 3000 --blocks 500
writer_fails
state a 'ro:Primary/Unknown ds:Diskless/'
node_ctl a secondary || fail "a Primary without disk cannot be demoted"
make_room "$nodes/disk"
node_ctl a attach || fail "attach: $(log a)"
node_primary a
records verify "$(node_uri a)" "$nodes/records" >/dev/null || fail "records are lost"
node_ctl b connect
step a Primary/Secondary
all_is_there a

# new_disk: a has an empty one, and gets everything.
new_disk() {
    node_ctl a down || fail "down of a"
    rm -f "${node_disks[a]}"
    truncate --size 32M "${node_disks[a]}"
    node_create_md a
    supervised_up a
    state a 'cs:Connected .*ds:UpToDate/UpToDate'
}

echo "the Secondary's file is cut: it is noticed although every write makes it longer again"
node_primary b
fill b --blocks 2000
writes b --blocks 2000
truncate --size 1M "${node_disks[a]}"
state b 'ds:UpToDate/Diskless'
says a 'shrank from 33554432 to '
still_writes b
refused a 10 'Failure: (119)' attach
writer_ends
new_disk
all_is_there b

echo "the Primary's file is cut: an error, and the peer has every record"
node_primary a
fill a --blocks 2000
writes a --blocks 2000
truncate --size 1M "${node_disks[a]}"
writer_fails
says a 'shrank from 33554432 to '
node_ctl a secondary || fail "a Primary without disk cannot be demoted"
node_primary b
records verify "$(node_uri b)" "$nodes/records" >/dev/null || fail "records are lost"
new_disk
all_is_there b

echo "the Primary's file is deleted: it goes on and says so; the next attach names the file"
node_primary a
fill a --blocks 500
writes a --blocks 500
rm "${node_disks[a]}"
says a "${node_disks[a]} was deleted"
still_writes a
writer_ends
node_ctl a secondary
node_ctl a detach
refused a 10 "Failure: (104) Can not open backing device|${node_disks[a]}: No such file or directory" attach
node_primary b
records verify "$(node_uri b)" "$nodes/records" >/dev/null || fail "records are lost"
new_disk
all_is_there b

echo "no space for meta data: no data write without them, an attach says why"
node_ctl a down || fail "down of a"
loop=$(losetup --find --show --direct-io=on "${node_disks[a]}")
file=${node_disks[a]}
node_disks[a]=$loop
truncate --size 256K "$nodes/meta/a.md"
node_metadata[a]="flexible-meta-disk $nodes/meta/a.md"
nodes_configure C 32
node_create_md a
supervised_up a
state a 'cs:Connected .*ds:UpToDate/UpToDate'
node_primary a
fill a --blocks 500
# The log is at 4 KiB of the meta data, and has 32 KiB.
no_log() { fallocate --punch-hole --offset 4096 --length 32768 "$nodes/meta/a.md"; }
no_log
fill_up "$nodes/meta"
# Extents that the log does not have yet.
"$python3" "$REPD_ROOT/scripts/lib/records.py" write "$(node_uri a)" "$nodes/records" --first 4000 --blocks 3000 \
    --rate 400 --seconds 10 >"$nodes/writer" 2>&1 && fail "the writer sees no error: $(cat "$nodes/writer")"
state a 'ro:Primary/Secondary ds:Diskless/UpToDate'
node_ctl a secondary || fail "a Primary without disk cannot be demoted"
refused a 10 'Failure: (118)|No space left on device' attach
node_primary b
records verify "$(node_uri b)" "$nodes/records" >/dev/null || fail "records are lost"
make_room "$nodes/meta"
again a
all_is_there b

echo "the Secondary's disk becomes read-only: the Primary's client sees nothing, an attach says why"
node_primary b
writes b --blocks 500
blockdev --setro "$loop"
state b 'ds:UpToDate/Diskless'
still_writes b
node_ctl a detach 2>/dev/null || true
# Some kernels refuse to open such a device for writing, others to write.
if output=$(node_ctl a attach 2>&1); then fail "a disk is attached that cannot be written to"; fi
[[ $output == *"$loop"*'not permitted'* || $output == *"$loop"*[Rr]ead-only* || $output == *"$loop"*denied* ]] ||
    fail "attach says '$output'"
blockdev --setrw "$loop"
again a
writer_ends
all_is_there b

node_ctl a down || fail "down of a"
node_ctl b down || fail "down of b"
cmp --bytes="$(data_size "${node_disks[b]}")" "$file" "$nodes/b.img" || fail "the disks differ"
for node in a b; do
    if grep -Eq 'was killed by signal ([0-8]|1[0-9])|ended with status' "$nodes/$node/r0/log"; then
        fail "an engine of $node died by itself: $(grep -E 'signal|status' "$nodes/$node/r0/log" | tail -n 5)"
    fi
done
