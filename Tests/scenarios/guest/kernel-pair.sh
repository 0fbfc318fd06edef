# Two minors of the guest's kernel replicate to each other: proves the tools that scenarios use.
set -euo pipefail
. "$REPD_ROOT/scripts/lib/kernel-peer.sh"

same_data() { same_bytes "$(blockdev --getsize64 /dev/drbd0)" "$disk0" "$disk1"; }

disk0=$(make_disk 64) disk1=$(make_disk 64)
kernel_create_md 0 "$disk0"
kernel_create_md 1 "$disk1"
kernel_up r0 0 "$disk0" 127.0.0.1:7788 127.0.0.1:7789
kernel_up r1 1 "$disk1" 127.0.0.1:7789 127.0.0.1:7788
kernel_wait_state 0 'cs:Connected .*ds:Inconsistent/Inconsistent'
# A fresh pair has nothing to sync from, and says so.
kernel_log_complaints && fail "the complaint of a fresh pair was not found"
kernel_log_complaints 'No resync, but'
kernel_log_mark

echo "first sync"
kernel_primary 0 --force
kernel_wait_state 0 'cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate'
[[ $(kernel_began_resync 0) -gt 16000 ]] || fail "first sync of $(kernel_began_resync 0) blocks"

echo "replicated writes"
sent=$(kernel_value 0 ns)
dd if=/dev/urandom of=/dev/drbd0 bs=4k seek=100 count=50 oflag=direct status=none
[[ $(kernel_value 0 ns) == $((sent + 200)) ]] || fail "sent $(kernel_value 0 ns), before $sent"
[[ $(kernel_value 0 oos) == 0 ]] || fail "out of sync: $(kernel_value 0 oos) KiB"
same_data

echo "cut"
link_cut 7788 7789
kernel_wait_state 0 'cs:(WFConnection|Unconnected|NetworkFailure)'
dd if=/dev/urandom of=/dev/drbd0 bs=4k seek=1000 count=7 oflag=direct status=none
[[ $(kernel_value 0 oos) == 28 ]] || fail "out of sync: $(kernel_value 0 oos) KiB, not 28"
kernel_wait_state 1 'cs:WFConnection'
if same_data >/dev/null; then fail "the cut link carried data"; fi
kernel_log_mark

echo "reconnect"
link_heal 7788 7789
kernel_wait_state 0 'cs:Connected .*ds:UpToDate/UpToDate'
kernel_wait_state 1 'cs:Connected .*ds:UpToDate/UpToDate'
[[ $(kernel_began_resync 0) == 7 ]] || fail "resync of $(kernel_began_resync 0) blocks, not 7"
[[ $(kernel_value 0 oos) == 0 ]] || fail "out of sync: $(kernel_value 0 oos) KiB"
same_data
kernel_log_complaints
kernel_down r0 r1
echo "the kernel's minors replicate, lose each other and find together again"
