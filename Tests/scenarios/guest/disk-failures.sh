# Disks that fail under repd and under the kernel's DRBD, as Secondary and as Primary, and come back.
set -euo pipefail
. "$REPD_ROOT/scripts/lib/repd-and-kernel.sh"
. "$REPD_ROOT/scripts/lib/failing-disks.sh"

device=/dev/drbd1

# sync_is_small TEXT LEAST MOST: the last resync, by both counts.
sync_is_small() {
    local blocks
    blocks=$(node_began_resync a)
    [[ $blocks -ge $2 && $blocks -le $3 && $blocks == "$(kernel_began_resync 1)" ]] ||
        fail "$1: resync of $blocks blocks by repd's count, $(kernel_began_resync 1) by the kernel's," \
            "not $2 to $3"
}

kernel_load
modprobe dm-mod
mkdir -p "$nodes"
dm_disk disk-a 32
dm_disk disk-b 32
node_disks=([a]=/dev/mapper/disk-a [b]=/dev/mapper/disk-b)
expected='my Disk seems to have failed|I/O error|dm-|Local IO failed|IO ERROR|disk\( |local WRITE IO error|local READ IO error|meta-disk|Sending NegAck|helper|I/O error, dev|error -5|NEG|write: error'
make_equal_metadata "${node_disks[a]}"
make_equal_metadata "${node_disks[b]}"
pair_up C
pair_in_sync "of equal meta data"

echo "repd's disk fails as Secondary: the kernel goes on, a new attach copies the difference"
kernel_primary 1
records fill "$device" "$nodes/records" --blocks 200 >/dev/null
pair_log_mark
disk_fails disk-a
records fill "$device" "$nodes/records" --blocks 300 >/dev/null || fail "the kernel's writes failed"
node_wait a 'cs:Connected ro:Secondary/Primary ds:Diskless/UpToDate' 10 || fail "repd has a disk"
kernel_wait_state 1 'cs:Connected ro:Primary/Secondary ds:UpToDate/Diskless' 10
[[ $(kernel_value 1 oos) == 1200 ]] || fail "out of sync: $(kernel_value 1 oos) KiB, not 1200"
node_is_alive a || fail "repd has died"
disk_returns disk-a
node_ctl a attach || fail "repd does not attach: $(node_log a)"
pair_in_sync "after a new attach"
began_resync 300 "after a new attach"
pair_same "after a new attach"
kernel_secondary 1

echo "the kernel's disk fails as Secondary: repd goes on, a new attach copies the difference"
node_primary a
pair_log_mark
disk_fails disk-b
records fill "$(node_uri a)" "$nodes/records" --blocks 400 >/dev/null || fail "repd's writes failed"
kernel_wait_state 1 'cs:Connected ro:Secondary/Primary ds:Diskless/UpToDate' 10
node_wait a 'cs:Connected ro:Primary/Secondary ds:UpToDate/Diskless' 10 || fail "the peer has a disk"
[[ $(out_of_sync a) == 1600 ]] || fail "out of sync: $(out_of_sync a) KiB, not 1600"
disk_returns disk-b
drbdmeta_of "${node_disks[b]}" apply-al >/dev/null 2>&1 || fail "apply-al of b"
"$drbdsetup_84" attach 1 "${node_disks[b]}" "${node_disks[b]}" internal "${kernel_disk_options[@]}"
pair_in_sync "after the kernel's new attach"
began_resync 400 "after the kernel's new attach"
pair_same "after the kernel's new attach"
records verify "$(node_uri a)" "$nodes/records" >/dev/null || fail "records are lost"

echo "repd's disk fails as Primary: EIO, then 'secondary', and the kernel has every record"
pair_log_mark
count_from
"$python3" "$REPD_ROOT/scripts/lib/records.py" write "$(node_uri a)" "$nodes/records" \
    --blocks 400 --rate 100 --seconds 60 >"$nodes/writer" 2>&1 &
writer=$!
wait_until 30 has_sent a || fail "the writer does not begin"
disk_fails disk-a
if wait "$writer"; then fail "no client saw an error"; fi
grep -q ' [1-9][0-9]* failed' "$nodes/writer" || fail "the writer says $(cat "$nodes/writer")"
node_wait a 'cs:Connected ro:Primary/Secondary ds:Diskless/UpToDate' 10 || fail "repd has a disk"
if nbdcopy "$(node_uri a)" null: 2>/dev/null; then fail "a Primary without disk can be read"; fi
node_ctl a secondary || fail "a Primary without disk cannot be demoted"
kernel_primary 1
records verify "$device" "$nodes/records" || fail "the kernel lacks records"
records fill "$device" "$nodes/records.after" --first 1000 --blocks 50 >/dev/null
disk_returns disk-a
node_ctl a attach || fail "repd does not attach: $(node_log a)"
pair_in_sync "after a failed Primary"
sync_is_small "after a failed Primary" 50 2100
records verify "$device" "$nodes/records.after" >/dev/null || fail "records are lost"
pair_same "after a failed Primary"

echo "the kernel's disk fails as Primary: it lives from repd's"
pair_log_mark
disk_fails disk-b
records fill "$device" "$nodes/records" --blocks 100 >/dev/null || fail "the kernel's writes failed"
node_wait a 'cs:Connected ro:Secondary/Primary ds:UpToDate/Diskless' 10 || fail "the peer has a disk"
echo 3 >/proc/sys/vm/drop_caches
records verify "$device" "$nodes/records" >/dev/null || fail "repd did not serve what it has"
echo "repd is killed when the kernel has been demoted: it knows what the kernel's disk lacks"
kernel_secondary 1
node_wait a 'ro:Secondary/Secondary ds:UpToDate/Diskless' 10 || fail "the demotion is not noticed"
node_kill a
node_up a
node_wait a 'cs:Connected ro:Secondary/Secondary ds:UpToDate/Diskless' 20 || fail "repd does not come back"
# The first one met the disk as it failed: that one is in the kernel's own log.
[[ $(out_of_sync a) -ge 396 ]] || fail "out of sync: $(out_of_sync a) KiB, not 396 or more"
disk_returns disk-b
drbdmeta_of "${node_disks[b]}" apply-al >/dev/null 2>&1 || fail "apply-al of b"
"$drbdsetup_84" attach 1 "${node_disks[b]}" "${node_disks[b]}" internal "${kernel_disk_options[@]}"
pair_in_sync "after a failed kernel Primary"
sync_is_small "after a failed kernel Primary" 100 2100
pair_same "after a failed kernel Primary"
kernel_secondary 1
kernel_is_content "$expected"
pair_down
pair_same_at_rest
