# One node without a peer, and the kernel device that it attaches itself.
set -euo pipefail
nodes=/tmp/nodes
. "$REPD_ROOT/scripts/lib/guest.sh"
. "$REPD_ROOT/scripts/lib/nodes.sh"
. "$REPD_ROOT/scripts/lib/supervised.sh"

node_ports=([a]=7788 [b]=7789)
mount_point=/tmp/mount
mkdir -p "$nodes" "$mount_point" /tmp/tree

modprobe nbd nbds_max=4
node_disks=([a]=$(make_disk 64) [b]=/tmp/none)
nodes_repd='resume-limit 1000;'
nodes_configure C
node_create_md a

echo "what stands in the link's place stays: up without a kernel device, or not at all"
: >/dev/drbd0
node_ctl a up || fail "up beside a file in the link's place"
[[ -f /dev/drbd0 && ! -L /dev/drbd0 ]] || fail "the file is gone"
node_ctl a down
nodes_repd='resume-limit 1000; kernel-device yes;'
nodes_configure C
node_refuses a 1 "which is not repd's" up
node_ctl a down
rm /dev/drbd0
nodes_repd='resume-limit 1000;'
nodes_configure C

echo "up reserves a device, with a link on a Secondary too"
node_ctl a up || fail "up: $(log)"
[[ $(readlink /dev/drbd0) == /dev/nbd0 ]] || fail "the link is $(ls -l /dev/drbd0)"
if is_attached; then fail "a Secondary is attached"; fi

# What one resource has reserved another does not get.
if flock -n /run/repd/.nbd0 true; then fail "nothing is reserved"; fi
[[ $(cat "/proc/$(engine)/oom_score_adj") == -900 ]] || fail "the OOM score is $(cat "/proc/$(engine)/oom_score_adj")"
grep -q 'VmLck:[[:space:]]*[1-9]' "/proc/$(engine)/status" || fail "no memory is locked"
if grep -q 'may hang' "$nodes/a/r0/log"; then fail "something was not permitted: $(log)"; fi

echo "somebody else has attached it: no promotion, and no half one"
nbdkit --foreground --unix /tmp/other memory 16M &
other=$!
wait_until 10 test -S /tmp/other || fail "nbdkit does not listen"
nbd-client -unix /tmp/other /dev/nbd0 >/dev/null
node_refuses a 10 '/dev/nbd0 is in use' primary --force
[[ $(node_ctl a role) == Secondary/* ]] || fail "the role is $(node_ctl a role)"
nbd-client -d /dev/nbd0 >/dev/null
kill "$other"

echo "promotion attaches it"
node_primary a --force
is_attached || fail "not attached: $(log)"
[[ $(blockdev --getsize64 /dev/drbd0) == "$(data_size "${node_disks[a]}")" ]] || fail "wrong size"
[[ $(cat /sys/block/nbd0/queue/io_timeout) == 100 ]] || fail "io_timeout is not set"
mkfs.ext4 -q /dev/drbd0
mount /dev/drbd0 "$mount_point"
for number in {1..40}; do head -c $((RANDOM * 4)) /dev/urandom >"/tmp/tree/$number"; done

echo "an engine that stands still for a while is waited for"
kill -STOP "$(engine)"
dd if=/tmp/tree/1 of="$mount_point/slow" conv=fsync status=none &
writer=$!
sleep 2
kill -0 "$writer" 2>/dev/null || fail "nobody wrote to the device"
kill -CONT "$(engine)"
wait "$writer" || fail "a slow engine gives errors: $(dmesg | tail -n 15)"
cmp /tmp/tree/1 "$mount_point/slow" || fail "the file differs"

echo "kill -9 of the engine, six times under load: no error"
(
    set -e
    round=0
    while [[ ! -e /tmp/enough ]]; do
        round=$((round + 1))
        mkdir "$mount_point/$round"
        cp /tmp/tree/* "$mount_point/$round/"
        sync -f "$mount_point"
        [[ $round -lt 3 ]] || rm -r "${mount_point:?}/$((round - 2))"
        echo "$round" >/tmp/rounds
    done
) &
load=$!
wait_until 60 test -e /tmp/rounds || fail "no load"
for _ in 1 2 3 4 5 6; do
    before=$(cat /tmp/rounds)
    engine_dies
    [[ $(node_ctl a role) == Primary/* ]] || fail "the role is $(node_ctl a role): $(log)"
    wait_until 60 eval "[[ \$(cat /tmp/rounds) -gt $((before + 1)) ]]" || fail "the load stands still: $(log) $(dmesg | tail -n 15)"
    kill -0 "$load" 2>/dev/null || fail "the load has failed: $(log)"
done
: >/tmp/enough
wait "$load" || fail "the load saw an error"
if dmesg | grep -E 'I/O error|EXT4-fs error|Buffer I/O'; then fail "the kernel saw an error"; fi
last=$(cat /tmp/rounds)
echo "  $last rounds"

echo "while it is mounted the role stays, by every way but force"
node_refuses a 11 'is mounted or claimed' secondary
node_refuses a 11 'is mounted or claimed' secondary --disconnect-clients
node_refuses a 11 'is mounted or claimed' down
[[ $(node_ctl a role) == Primary/* ]] || fail "the role is $(node_ctl a role)"
head -c 100000 /dev/urandom >"$mount_point/still"
sync -f "$mount_point" || fail "the device does not work any more"
gap
node_refuses a 11 '/dev/nbd0' secondary
node_refuses a 11 '/dev/nbd0' down
gap_ends
[[ $(node_ctl a role) == Primary/* ]] || fail "the role is $(node_ctl a role): $(log)"
sync -f "$mount_point" || fail "the device does not work any more"

echo "unmounted, secondary detaches it, and the link stays"
umount "$mount_point"
node_ctl a secondary || fail "secondary: $(log)"
wait_until 10 eval '! is_attached' || fail "still attached: $(log)"
[[ -L /dev/drbd0 ]] || fail "the link is gone"

echo "attached again: fsck finds nothing, and what was written is there"
node_primary a
fsck.ext4 -f -n /dev/drbd0 || fail "fsck"
mount /dev/drbd0 "$mount_point"
diff -r /tmp/tree "$mount_point/$last" || fail "the tree differs"
umount "$mount_point"

echo "made Secondary while its engine is dead: the device is detached, and no restart attaches it"
gap
node_ctl a secondary || fail "secondary in the gap"
wait_until 10 eval '! is_attached' || fail "still attached"
gap_ends
wait_until 20 node_has_state a 'ro:Secondary/' || fail "not Secondary: $(log)"
if is_attached; then fail "attached again: $(log)"; fi

echo "a restart that may not be Primary again detaches what it finds"
node_primary a
gap
rm "$nodes/a/r0/role"
gap_ends
wait_until 20 node_has_state a 'ro:Secondary/' || fail "not Secondary: $(log)"
wait_until 10 eval '! is_attached' || fail "still attached: $(log)"

echo "supervisor and engine killed: the next up takes the same device, detached"
node_primary a
kill -KILL "$(supervisor)"
engine_dies
is_attached || fail "detached by nobody"
node_ctl a up || fail "up: $(log)"
wait_until 10 eval '! is_attached' || fail "still attached: $(log)"
[[ $(readlink /dev/drbd0) == /dev/nbd0 ]] || fail "the link is $(ls -l /dev/drbd0)"

echo "taken away by somebody else: it stays away until the next promotion"
node_primary a
nbd-client -d /dev/nbd0 >/dev/null
wait_until 10 grep -q 'detached by somebody else' "$nodes/a/r0/log" || fail "nobody says so: $(log)"
node_primary a
is_attached || fail "not attached again: $(log)"
fsck.ext4 -n /dev/drbd0 >/dev/null || fail "fsck"

echo "SIGTERM detaches it and takes the link away"
process=$(engine)
kill -TERM "$(supervisor)"
wait_until 20 process_is_gone "$process" || fail "the engine does not end: $(log)"
wait_until 10 test ! -e "$nodes/a/r0/control.sock" || fail "sockets are left"
wait_until 10 eval '! is_attached' || fail "still attached: $(log)"
[[ ! -L /dev/drbd0 ]] || fail "the link is left"
node_ctl a up || fail "up: $(log)"

echo "down --force does not ask who has it mounted"
node_primary a
mount -o errors=continue /dev/drbd0 "$mount_point"
node_ctl a down --force || fail "down --force: $(log)"
umount "$mount_point" || true
[[ ! -L /dev/drbd0 ]] || fail "the link is left"

echo "down removes the link, also while the engine is dead"
wait_until 10 eval '! is_attached' || fail "still attached after the umount: $(grep nbd /proc/mounts; dmesg | tail -n 5)"
node_ctl a up || fail "up: $(log)"
[[ -L /dev/drbd0 ]] || fail "no link"
node_primary a
node_ctl a down || fail "down: $(log)"
wait_until 10 eval '! is_attached' || fail "still attached after down: $(log)"
[[ ! -L /dev/drbd0 ]] || fail "the link is left"
node_ctl a up || fail "up: $(log)"
node_primary a
gap
kill -CONT "$(supervisor)"
node_ctl a down || fail "down in the gap: $(log)"
wait_until 10 eval '! is_attached' || fail "still attached after down in the gap: $(log)"
[[ ! -L /dev/drbd0 ]] || fail "the link is left"

echo "down where supervisor and engine are dead: nothing is left of the device either"
node_ctl a up || fail "up: $(log)"
node_primary a
kill -KILL "$(supervisor)"
engine_dies
is_attached || fail "detached by nobody"
mount /dev/drbd0 "$mount_point" &
mounting=$!
node_ctl a down --force || fail "down --force: $(log)"
wait "$mounting" && fail "mounted without a server"
wait_until 10 eval '! is_attached' || fail "still attached: $(log)"
[[ ! -L /dev/drbd0 ]] || fail "the link is left"
