#!/usr/bin/env bash
# Volumes whose meta data are on devices of their own: all of one device, and slots of one that volumes
# share. Who has a slot keeps others from it, and from no other slot. A crash loses nothing, and an extent
# leaves the log only when its data are on stable storage (T2): the device of the data is flushed, too.
# timeout: 240
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib/scenario.sh"
. "$REPD_ROOT/scripts/lib/nodes.sh"

need_binary repd repctl
nodes=$scratch/nodes
mkdir -p "$nodes" "$scratch/mount"

clean_up() {
    local mount
    for mount in "$scratch"/mount/*; do
        [[ ! -d $mount ]] || fusermount3 -u "$mount" 2>/dev/null || fusermount3 -uz "$mount" 2>/dev/null || true
    done
    scenario_clean_up
}
trap clean_up EXIT

# write_at NODE BYTE OFFSET [LENGTH]: and waits for the answer, but for no flush.
write_at() {
    qemu-io -f raw -c "write -P $2 $3 ${4:-4k}" "$(node_uri "$1")" >"$scratch/io" 2>&1 ||
        fail "write to $1: $(cat "$scratch/io")"
}

# metadata_of NODE: "UUIDs flags bits" as drbdmeta reads them.
metadata_of() {
    local text
    text=$(drbdmeta --force - v08 "${meta_files[$1]}" "${meta_forms[$1]}" get-gi </dev/null 2>/dev/null) ||
        fail "drbdmeta finds no meta data of $1"
    printf '%s\n' "$text"
}

same_data_as_peer() {
    cmp "${node_disks[a]}" "${node_disks[b]}" || fail "the disks differ"
}

echo "a pair: all of a device here, a slot of a shared one there"
truncate --size 1M "$nodes/a.meta"
truncate --size 512M "$nodes/shared.meta"
declare -A meta_files=([a]=$nodes/a.meta [b]=$nodes/shared.meta) meta_forms=([a]=flex-external [b]=1)
node_metadata=([a]="flexible-meta-disk $nodes/a.meta" [b]="meta-disk $nodes/shared.meta [1]")
nodes_disk='al-extents 67;'
# Not a multiple of 4 KiB: the last bit covers less.
truncate --size $((300 * 1024 * 1024 + 512)) "$nodes/a.img" "$nodes/b.img"
node_disks=([a]=$nodes/a.img [b]=$nodes/b.img)
nodes_configure C
node_create_md a
node_create_md b
node_up a
node_up b
node_wait a 'cs:Connected ro:Secondary/Secondary ds:Inconsistent/Inconsistent'
node_primary a --force
node_wait a 'cs:Connected .*ds:UpToDate/UpToDate' 60
write_at a 17 0 8M
write_at a 18 $((300 * 1024 * 1024)) 512

echo "a slot in use is left alone, and its neighbour is not"
cat >"$scratch/other.conf" <<CONFIGURATION
resource other {
    on b { device /dev/drbd2; disk $nodes/other.img; address 127.0.0.1:1; meta-disk $nodes/shared.meta [SLOT]; }
    on a { device /dev/drbd2; disk $nodes/other.img; address 127.0.0.1:2; meta-disk internal; }
}
CONFIGURATION
truncate --size 16M "$nodes/other.img"
other() { "$REPCTL" -c "$scratch/slot.conf" --run-dir "$scratch/other" --node-name b "$@" other; }
sed 's/\[SLOT\]/[1]/' "$scratch/other.conf" >"$scratch/slot.conf"
status=0
other create-md --force >"$scratch/output" 2>&1 </dev/null || status=$?
[[ $status == 20 ]] || fail "create-md of a slot in use: exit status $status"
grep -q "in use by pid ${node_pids[b]} (repd)" "$scratch/output" || fail "no holder: $(cat "$scratch/output")"
sed 's/\[SLOT\]/[3]/' "$scratch/other.conf" >"$scratch/slot.conf"
other create-md --force >"$scratch/output" 2>&1 </dev/null || fail "$(cat "$scratch/output")"
"$REPD_BIN/repd" other --run-dir "$scratch/other" --node-name b >"$scratch/other.log" 2>&1 </dev/null &
scenario_pids+=("$!")
other_pid=$!
wait_until 15 other role >/dev/null 2>&1 || fail "no daemon: $(cat "$scratch/other.log")"
other attach || fail "a neighbour is not attached"
sed 's/\[SLOT\]/[1]/' "$scratch/other.conf" >"$scratch/slot.conf"
status=0
other attach >"$scratch/output" 2>&1 || status=$?
[[ $status == 10 ]] || fail "the configuration changed under a disk in use: exit status $status"
grep -q "shared.meta \[3\]; the configuration now names" "$scratch/output" || fail "$(cat "$scratch/output")"
other detach
status=0
other attach >"$scratch/output" 2>&1 || status=$?
[[ $status == 10 ]] || fail "a slot in use is attached: exit status $status"
grep -q "(105) Can not open meta device. .*in use by pid ${node_pids[b]} (repd)" "$scratch/output" ||
    fail "$(cat "$scratch/output")"
other down
wait_until 10 process_is_gone "$other_pid" || fail "the other daemon does not end"

echo "killed while alone: what was written is found by the log and by bits, and copied"
node_ctl b disconnect
node_wait a 'cs:WFConnection'
for ((extent = 0; extent < 70; extent++)); do
    printf 'write -P 33 %dk 4k\n' $((extent * 4096 + extent))
done >"$scratch/commands"
printf 'flush\n' >>"$scratch/commands"
qemu-io -f raw "$(node_uri a)" <"$scratch/commands" >"$scratch/io" 2>&1 || fail "$(cat "$scratch/io")"
node_kill a
[[ $(metadata_of a) == *:1:1:1:0:0:0:0 ]] || fail "killed, its meta data say $(metadata_of a)"
node_log_mark a
node_up a
node_wait a 'ds:UpToDate/'
marked=$(node_log_since a 'marked additional' | sed -n 's/.*additional \([0-9]*\) KiB.*/\1/p')
[[ ${marked:-0} -gt 0 ]] || fail "nothing was marked out of sync by the log"
node_ctl b connect
node_wait a 'cs:Connected .*ds:UpToDate/UpToDate' 60
node_down a
node_down b
same_data_as_peer
for node in a b; do
    [[ $(metadata_of "$node") == *:1:1:0:[01]:0:0:0 ]] || fail "at rest: $(metadata_of "$node")"
    dump=$(drbdmeta --force - v08 "${meta_files[$node]}" "${meta_forms[$node]}" dump-md </dev/null 2>/dev/null)
    [[ $dump == *'# bits-set 0;' ]] || fail "bits are left on $node: $dump"
done

echo "before an extent leaves the log, the data's device is flushed (T2)"
events=$scratch/events
: >"$events"
# recorded NAME SIZE: a file that notes what is done to it.
recorded() {
    local file=$scratch/$1.below
    truncate --size "$2" "$file"
    mkdir "$scratch/mount/$1"
    # shellcheck disable=SC2016
    background env name="$1" file="$file" events="$events" \
        nbdkit --foreground --unix "$scratch/$1.socket" eval get_size="echo $2" \
        can_write='exit 0' can_flush='exit 0' thread_model='echo serialize_requests' \
        pread='dd if="$file" iflag=skip_bytes,count_bytes,fullblock bs=64k skip="$4" count="$3"' \
        pwrite='echo "$name write $4" >>"$events"
            dd of="$file" oflag=seek_bytes bs=64k seek="$4" conv=notrunc iflag=fullblock' \
        flush='echo "$name flush" >>"$events"' >"$scratch/$1.log" 2>&1
    wait_until 10 test -S "$scratch/$1.socket" || fail "nbdkit does not listen: $(cat "$scratch/$1.log")"
    background nbdfuse "$scratch/mount/$1/disk" "nbd+unix:///?socket=$scratch/$1.socket" \
        2>"$scratch/$1.fuse.log"
    wait_until 10 test -s "$scratch/mount/$1/disk" || fail "nbdfuse does not show the file"
}
recorded data $((32 << 20))
recorded meta $((1 << 20))
node_disks[a]=$scratch/mount/data/disk
node_metadata[a]="flexible-meta-disk $scratch/mount/meta/disk"
nodes_configure C
node_create_md a
node_up a
node_primary a --force
# Other than qemu-io this client flushes only when it is told to. The first write makes its extent
# active, the second goes to an active one; then there are three more extents.
"$python3" - "$(node_uri a)" "$events" <<'WRITE' >"$scratch/io" 2>&1 || fail "$(cat "$scratch/io")"
import nbd, sys
client = nbd.NBD()
client.connect_uri(sys.argv[1])
client.pwrite(b"1" * 4096, 0)
open(sys.argv[2], "w").close()
client.pwrite(b"2" * 4096, 4096)
if "data flush" in open(sys.argv[2]).read():
    sys.exit("this test cannot see a flush that is missing")
for extent in (1, 2, 3):
    client.pwrite(b"3" * 4096, extent << 22)
WRITE
awk '
    /^data write/ { dirty = 1 }
    /^data flush/ { dirty = 0 }
    # The ring of the log: 32 KiB behind the super block.
    $1 == "meta" && $2 == "write" && $3 >= 4096 && $3 < 36864 {
        blocks++
        if (dirty) { print "log block at " $3 " over data that were not flushed"; exit 1 }
    }
    END { if (blocks < 3) { print blocks + 0 " log blocks, not 3"; exit 1 } }' "$events" >"$scratch/verdict" ||
    fail "$(cat "$scratch/verdict"): $(cat "$events")"
node_ctl a secondary
node_down a
