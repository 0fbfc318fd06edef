#!/usr/bin/env bash
# A daemon that dies comes back by itself: Primary where that is safe, Secondary where it is not.
# timeout: 240
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib/scenario.sh"

need_binary repd repctl
nodes=$scratch/nodes
. "$REPD_ROOT/scripts/lib/nodes.sh"

# supervised_up NODE: by repctl, which starts a supervisor.
supervised_up() {
    node_ctl "$1" up || fail "up of $1"
    scenario_pids+=("$(supervisor "$1")")
}
supervisor() { cat "$nodes/$1/r0/supervisor.pid"; }
engine() { cat "$nodes/$1/r0/repd.pid" 2>/dev/null || true; }

# engine_dies NODE: and is reaped.
engine_dies() {
    local process
    process=$(engine "$1")
    kill -KILL "$process"
    wait_until 10 process_has_gone "$process" || fail "the engine does not die"
}
process_has_gone() { process_is_gone "$1"; }

# gap NODE: its engine is dead and stays so until gap_ends.
gap() {
    kill -STOP "$(supervisor "$1")"
    engine_dies "$1"
}
gap_ends() { kill -CONT "$(supervisor "$1")"; }

has_engine() { [[ -n $(engine a) ]] && process_is_alive "$(engine a)"; }
process_is_alive() { ! process_is_gone "$1"; }

# says NODE TEXT: its log, sooner or later.
says() { wait_until 15 log_has "$1" "$2" || fail "$1 does not say '$2': $(tail -n 20 "$nodes/$1/r0/log")"; }
log_has() { grep -qF "$2" "$nodes/$1/r0/log"; }

in_step='cs:Connected ro:%s ds:UpToDate/UpToDate'
# step NODE ROLES
step() {
    # shellcheck disable=SC2059
    wait_until 30 node_has_state "$1" "$(printf "$in_step" "$2")" ||
        fail "$1 is not $2 but $(node_status "$1"): $(tail -n 25 "$nodes/$1/r0/log")"
}

nodes_repd='resume-limit 1000;'
nodes_configure C 32
make_equal_metadata "$nodes/a.img"
make_equal_metadata "$nodes/b.img"
supervised_up a
supervised_up b
step a Secondary/Secondary
node_primary a
records fill "$(node_uri a)" "$nodes/records" --blocks 400 >/dev/null

echo "kill -9 of the Primary's engine, ten times under load: the client sees no error, nobody a Secondary"
"$python3" "$REPD_ROOT/scripts/lib/records.py" write "$(node_uri a)" "$nodes/records" --blocks 400 \
    --reconnect 20 >"$nodes/writer" 2>&1 &
writer=$!
scenario_pids+=("$writer")
for _ in 1 2 3 4 5 6 7 8 9 10; do
    sleep "0.$((RANDOM % 5))"
    engine_dies a
    role=$(node_ctl a role) || fail "role in the gap: $role"
    [[ $role == Primary/* ]] || fail "the role in the gap is $role"
    kill -0 "$writer" 2>/dev/null || fail "the writer has ended: $(cat "$nodes/writer")"
done
kill -TERM "$writer"
wait "$writer" || fail "the writer saw an error: $(cat "$nodes/writer")"
[[ $(cat "$nodes/writer") == *' 0 unanswered, 0 failed'* ]] || fail "the writer says $(cat "$nodes/writer")"
echo "  $(cat "$nodes/writer")"
step a Primary/Secondary
records verify "$(node_uri a)" "$nodes/records" >/dev/null || fail "records are lost"
same_data "$nodes/a.img" "$nodes/b.img" || fail "the disks differ"

echo "qemu with reconnect-delay writes and reads back across kills, and sees no error"
{
    for ((block = 0; block < 150; block++)); do
        echo "write -P $((block % 250 + 1)) $((block * 64))k 64k"
        echo "sleep 10"
    done
    echo flush
    for ((block = 0; block < 150; block++)); do echo "read -P $((block % 250 + 1)) $((block * 64))k 64k"; done
} >"$nodes/commands"
qemu-io --image-opts "driver=raw,file.driver=nbd,file.server.type=unix,file.server.path=$nodes/a/r0/nbd.sock,\
file.export=r0,file.reconnect-delay=30" <"$nodes/commands" >"$nodes/qemu" 2>&1 &
client=$!
scenario_pids+=("$client")
for _ in 1 2 3; do
    sleep 0.4
    engine_dies a
    [[ $(node_ctl a role) == Primary/* ]] || fail "the role is $(node_ctl a role)"
done
wait "$client" || fail "qemu-io: $(tail -n 5 "$nodes/qemu")"
if grep -Eqi 'fail|error' "$nodes/qemu"; then fail "qemu-io: $(grep -Ei 'fail|error' "$nodes/qemu" | head -n 5)"; fi
[[ $(grep -c 'wrote 65536/65536' "$nodes/qemu") == 150 && $(grep -c 'read 65536/65536' "$nodes/qemu") == 150 ]] ||
    fail "qemu-io did not do everything: $(tail -n 5 "$nodes/qemu")"

echo "upgrade under load: another process, and the client sees no error"
"$python3" "$REPD_ROOT/scripts/lib/records.py" write "$(node_uri a)" "$nodes/records" --blocks 400 \
    --reconnect 20 >"$nodes/writer" 2>&1 &
writer=$!
scenario_pids+=("$writer")
for _ in 1 2 3; do
    process=$(engine a)
    node_ctl a upgrade || fail "upgrade of a: $(tail -n 5 "$nodes/a/r0/log")"
    [[ $(engine a) != "$process" ]] || fail "the process is the same"
    node_ctl b upgrade || fail "upgrade of b: $(tail -n 5 "$nodes/b/r0/log")"
    step b Secondary/Primary
done
kill -TERM "$writer"
wait "$writer" || fail "the writer saw an error: $(cat "$nodes/writer")"
records verify "$(node_uri a)" "$nodes/records" >/dev/null || fail "records are lost"

echo "kill -9 of the Secondary's engine: it comes back, and what it missed is copied"
for _ in 1 2 3; do
    engine_dies b
    step b Secondary/Primary
done

echo "made Secondary while its engine is dead: no restart brings up a Primary"
gap a
node_ctl a secondary || fail "secondary in the gap"
gap_ends a
step a Secondary/Secondary
node_primary a

echo "the peer was promoted while the engine was dead: the peer does not agree"
gap a
node_wait b 'cs:WFConnection ro:Secondary/Unknown' 20 || fail "b does not notice"
node_primary b
records fill "$(node_uri b)" "$nodes/records" --blocks 300 >/dev/null
gap_ends a
step a Secondary/Primary
says a 'not Primary again'
records verify "$(node_uri b)" "$nodes/records" >/dev/null || fail "records are lost"
node_ctl b secondary
same_data "$nodes/a.img" "$nodes/b.img" || fail "the disks differ"

echo "commands that come in the gap are carried out by the engine that follows, which lives"
node_primary a
for command in role connect attach primary status; do
    gap a
    node_ctl a "$command" >"$nodes/output" 2>&1 &
    asker=$!
    sleep 0.3
    gap_ends a
    process=''
    wait_until 10 has_engine || fail "no engine"
    process=$(engine a)
    wait "$asker" || [[ $command == connect || $command == attach ]] ||
        fail "'$command' in the gap: $(cat "$nodes/output")"
    step a Primary/Secondary
    [[ $(engine a) == "$process" ]] || fail "the engine did not survive '$command'"
done

echo "a promotion that nobody waits for any more is not carried out after 'secondary'"
gap a
timeout 1 "$REPCTL" -c "$nodes/a.conf" --run-dir "$nodes/a" --node-name a primary r0 >/dev/null 2>&1 || true
node_ctl a secondary || fail "secondary in the gap"
gap_ends a
step a Secondary/Secondary

echo "without a peer it goes on alone, and only what it writes then makes a generation"
node_primary a
node_ctl b down
node_wait a 'cs:WFConnection ro:Primary/Unknown' 20 || fail "a does not notice"
engine_dies a
[[ $(node_ctl a role) == Primary/Unknown ]] || fail "a is $(node_ctl a role)"
records fill "$(node_uri a)" "$nodes/records" --blocks 200 >/dev/null
engine_dies a
records verify "$(node_uri a)" "$nodes/records" >/dev/null || fail "records are lost"
supervised_up b
step a Primary/Secondary
same_data "$nodes/a.img" "$nodes/b.img" || fail "the disks differ"

echo "taken down while its engine is dead: nothing is left, and up starts Secondary"
for _ in 1 2 3 4 5; do
    gap a
    kill -CONT "$(supervisor a)"
    node_ctl a down || fail "down in the gap"
    [[ ! -e $nodes/a/r0/control.sock && ! -e $nodes/a/r0/role ]] || fail "down leaves $(ls "$nodes/a/r0")"
    supervised_up a
    step a Secondary/Secondary
    node_primary a
done

echo "the disk is in use for longer than resume-timeout: Secondary, and it waits for the disk"
nodes_repd='resume-limit 1000; resume-timeout 1;'
nodes_configure C
node_ctl a down
supervised_up a
step a Secondary/Secondary
node_primary a
mkfifo "$nodes/release"
flock "$nodes/a.img" cat "$nodes/release" &
holder=$!
scenario_pids+=("$holder")
engine_dies a
role=$(node_ctl a role) || fail "role while the disk is in use: $role"
[[ $role == Secondary/* ]] || fail "the role is $role"
says a 'waiting for the disk'
says a 'resume-timeout'
echo >"$nodes/release"
wait "$holder" || true
step a Secondary/Secondary

echo "more deaths than resume-limit: Secondary, and slower and slower"
nodes_repd='resume-limit 2;'
nodes_configure C
node_ctl a down
supervised_up a
step a Secondary/Secondary
node_primary a
for _ in 1 2; do
    engine_dies a
    [[ $(node_ctl a role) == Primary/* ]] || fail "the role is $(node_ctl a role)"
done
engine_dies a
step a Secondary/Secondary
says a 'more than resume-limit (2)'

for node in a b; do
    if grep -Eq 'was killed by signal ([0-8]|1[0-9])|ended with status' "$nodes/$node/r0/log"; then
        fail "an engine of $node died by itself: $(grep -E 'signal|status' "$nodes/$node/r0/log" | tail -n 5)"
    fi
done

echo "the supervisor is told to end: it takes the engine along"
node_primary a
process=$(engine a)
kill -TERM "$(supervisor a)"
wait_until 15 process_is_gone "$process" || fail "the engine outlives its supervisor"
wait_until 5 test ! -e "$nodes/a/r0/control.sock" || fail "sockets are left"
[[ $(drbdmeta_of "$nodes/a.img" get-gi) == *:0:* ]] || fail "$(drbdmeta_of "$nodes/a.img" get-gi)"
node_ctl b down
