# A pair of repd (node a, minor 0) and the kernel's DRBD (node b, minor 1) in one virtual machine.
# Sourced by jobs, not run.
# shellcheck shell=bash

# shellcheck source=scripts/lib/kernel-peer.sh
. "$REPD_ROOT/scripts/lib/kernel-peer.sh"
nodes=/tmp/nodes
# shellcheck source=scripts/lib/nodes.sh
. "$REPD_ROOT/scripts/lib/nodes.sh"
# shellcheck source=scripts/lib/fio.sh
. "$REPD_ROOT/scripts/lib/fio.sh"

repd_address=127.0.0.1:7788 kernel_address=127.0.0.1:7789
node_ports=([a]=7788 [b]=7789)
in_sync='cs:Connected ro:[A-Za-z/]* ds:UpToDate/UpToDate'
lost='cs:(WFConnection|Unconnected|NetworkFailure|BrokenPipe|Timeout)'

# pair_disks MIB: a loop device for each.
pair_disks() {
    mkdir -p "$nodes"
    node_disks=([a]=$(make_disk "$1") [b]=$(make_disk "$1"))
    nodes_configure
}

pair_create_md() {
    node_create_md a
    drbdmeta_of "${node_disks[b]}" create-md >/dev/null 2>&1 || fail "create-md of b"
}

# pair_up PROTOCOL [NET_OPTION...]: both attach and connect; the options are the kernel's.
pair_up() {
    local protocol=$1
    shift
    nodes_configure "$protocol"
    node_up a || fail "repd is not up: $(node_log a)"
    b_up "$protocol" "$@"
}

# b_up PROTOCOL [NET_OPTION...]: the kernel's node. What was left in its log is applied first.
b_up() {
    local protocol=$1
    shift
    drbdmeta_of "${node_disks[b]}" apply-al >/dev/null 2>&1 || fail "apply-al of b"
    kernel_up r0 1 "${node_disks[b]}" "$kernel_address" "$repd_address" --protocol="$protocol" "$@"
}

b_connect() { kernel_connect r0 "$kernel_address" "$repd_address" "$@"; }
b_disconnect() { kernel_disconnect "$kernel_address" "$repd_address"; }

pair_down() {
    node_down a || fail "repd does not go down"
    kernel_down r0
}

# pair_in_sync [TEXT]: both nodes say so.
pair_in_sync() {
    if ! node_wait a "$in_sync" 60 || ! kernel_wait_state 1 "$in_sync" 20; then
        dmesg | grep -i drbd | tail -n 30
        fail "no sync $*"
    fi
}

# pair_same [TEXT]: the data is the same; what was sent to the peer may still be on its way there.
pair_same() {
    wait_until 5 same_data "${node_disks[a]}" "${node_disks[b]}" >/dev/null || fail "the disks differ $*"
}

# pair_same_at_rest: after pair_down, meta data included.
pair_same_at_rest() {
    same_data "${node_disks[a]}" "${node_disks[b]}" || fail "the disks differ at rest"
    same_metadata_after_kernel
}

same_metadata_after_kernel() {
    drbdmeta_of "${node_disks[b]}" apply-al >/dev/null 2>&1 || fail "apply-al of b"
    same_metadata "${node_disks[a]}" "${node_disks[b]}"
}

pair_log_mark() {
    node_log_mark a
    kernel_log_mark
}

pair_cut() { link_cut 7788 7789; }
pair_heal() { link_heal 7788 7789; }

# kernel_is_content [IGNORE]: nothing in its log complains.
kernel_is_content() {
    kernel_log_complaints "$@" || fail "the kernel complains"
}

# The counters of both ends, in KiB: what one has sent the other has received.
count_from() {
    a_sent=$(node_value a ns) a_received=$(node_value a nr)
    b_sent=$(kernel_value 1 ns) b_received=$(kernel_value 1 nr)
}

# has_sent NODE: something since count_from.
has_sent() {
    if [[ $1 == a ]]; then [[ $(node_value a ns) -gt $a_sent ]]; else [[ $(kernel_value 1 ns) -gt $b_sent ]]; fi
}

# counted NODE KIB TEXT: NODE has sent exactly that since count_from, and the other received it.
counted() {
    local sent received
    if [[ $1 == a ]]; then
        sent=$(($(node_value a ns) - a_sent)) received=$(($(kernel_value 1 nr) - b_received))
    else
        sent=$(($(kernel_value 1 ns) - b_sent)) received=$(($(node_value a nr) - a_received))
    fi
    [[ $sent == "$2" && $received == "$2" ]] ||
        fail "$3: $1 counts $sent KiB sent, its peer $received KiB received, not $2"
}

# began_resync BLOCKS TEXT: both nodes say that the last resync was of so many blocks.
began_resync() {
    [[ $(node_began_resync a) == "$1" && $(kernel_began_resync 1) == "$1" ]] ||
        fail "$2: resync of $(node_began_resync a) blocks by repd's count," \
            "$(kernel_began_resync 1) by the kernel's, not $1"
}

# on NODE: fio's options for its device.
on() { if [[ $1 == a ]]; then nbd_of a; else printf '%s\n' --filename=/dev/drbd1 --ioengine=libaio --direct=1; fi; }

# promote NODE [--force] and demote NODE
promote() { if [[ $1 == a ]]; then node_primary "$@"; else kernel_primary 1 "${@:2}"; fi; }
demote() { if [[ $1 == a ]]; then node_ctl a secondary; else kernel_secondary 1; fi; }

wait_lost() { node_wait a "$lost" 20 && kernel_wait_state 1 "$lost" 20 || fail "the cut is not noticed"; }

# out_of_sync NODE: KiB by its own count.
out_of_sync() { if [[ $1 == a ]]; then node_value a oos; else kernel_value 1 oos; fi; }
