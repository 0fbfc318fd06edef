# Machine beta of 21-kernel-killed: the kernel's DRBD. First it loses power as Primary; when it comes
# `again`, repd is killed as Primary and the kernel promoted.
set -euo pipefail
. "$REPD_ROOT/scripts/lib/repd-and-kernel.sh"

mkdir -p "$nodes"
node_disks=([a]=/dev/vda [b]=/dev/vda)
repd_address=10.77.0.1:7788 kernel_address=10.77.0.2:7789
device=/dev/drbd1
kernel_load
if [[ $1 == first ]]; then
    drbdmeta_of /dev/vda create-md >/dev/null 2>&1
    b_up C
    kernel_wait_state 1 'cs:Connected .*ds:Inconsistent/Inconsistent' 60
    kernel_primary 1 --force
    kernel_wait_state 1 "$in_sync" 60
    kernel_is_content 'No resync, but'
    records fill "$device" /shared/acks-1 --journal
    "$python3" "$REPD_ROOT/scripts/lib/records.py" write "$device" /shared/acks-1 --journal &
    pair_signal writing
    sleep "2.$RANDOM"
    echo b >/proc/sysrq-trigger
    sleep 60
fi

pair_await repd-promoted
b_up C
kernel_wait_state 1 'cs:Connected ro:Secondary/Primary ds:UpToDate/UpToDate' 60
echo "resync of $(kernel_began_resync 1) blocks after the crash"
kernel_is_content
pair_signal back
pair_await repd-killed
kernel_wait_state 1 'cs:(WFConnection|Unconnected|BrokenPipe|NetworkFailure) ro:Secondary/Unknown' 20
kernel_primary 1
records verify "$device" /shared/acks-3 || fail "records of the killed repd are lost"
records fill "$device" /shared/acks-4 --blocks 300 --journal
kernel_log_mark
pair_signal kernel-promoted
pair_await repd-back
kernel_wait_state 1 'cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate' 30
echo "resync of $(kernel_began_resync 1) blocks after the kill"
records verify "$device" /shared/acks-4 >/dev/null || fail "records are lost"
kernel_is_content
kernel_secondary 1
pair_signal kernel-secondary
pair_await repd-down
kernel_down r0
