# The kernel's DRBD 8.4 as a peer, for jobs in the virtual machine (scripts/vm). Sourced, not run:
#
#     . "$REPD_ROOT/scripts/lib/kernel-peer.sh"
#     disk=$(make_disk 64)
#     kernel_create_md 0 "$disk"
#     kernel_up r0 0 "$disk" 127.0.0.1:7788 127.0.0.1:7789 --protocol=C
#     kernel_wait_state 0 'cs:Connected .*ds:UpToDate/UpToDate' 30
#     kernel_log_complaints
#
# shellcheck shell=bash

# shellcheck source=scripts/lib/guest.sh
. "$(dirname "${BASH_SOURCE[0]}")/guest.sh"

# The binary for the module of the 8.4 generation; plain drbdsetup picks one of several by version.
drbdsetup_84=/lib/drbd/drbdsetup-84
# Faster than the defaults, so that tests do not wait: a fixed resync rate, and a lost peer is
# noticed after three seconds and looked for every second.
kernel_disk_options=(--resync-rate=200M --c-plan-ahead=0)
kernel_net_options=(--protocol=C --ping-int=1 --ping-timeout=20 --connect-int=1)

# kernel_load [PARAMETER=VALUE...]: loads the module. Handlers run KERNEL_HELPER (/bin/true).
# shellcheck disable=SC2120
kernel_load() {
    [[ ! -e /proc/drbd ]] || return 0
    mkdir -p /run/lock
    modprobe crc32c-generic
    modprobe drbd "usermode_helper=${KERNEL_HELPER:-/bin/true}" "$@"
}

# kernel_create_md MINOR DISK: fresh internal meta data.
kernel_create_md() {
    local output
    kernel_load
    # A minor remembers its last device there, and drbdmeta would ask.
    rm -f "/var/lib/drbd/drbd-minor-$1.lkbd"
    output=$(drbdmeta --force "$1" v08 "$2" internal create-md 2>&1 </dev/null) ||
        fail "create-md $2: $output"
}

# kernel_attach RESOURCE MINOR DISK [DISK_OPTION...]: resource, volume 0 and its backing disk.
kernel_attach() {
    local resource=$1 minor=$2 disk=$3
    shift 3
    kernel_load
    "$drbdsetup_84" new-resource "$resource"
    "$drbdsetup_84" new-minor "$resource" "$minor" 0
    "$drbdsetup_84" attach "$minor" "$disk" "$disk" internal "${kernel_disk_options[@]}" "$@"
}

# kernel_connect RESOURCE LOCAL PEER [NET_OPTION...]: later options win over the fast ones.
kernel_connect() {
    local resource=$1 local_address=$2 peer_address=$3
    shift 3
    "$drbdsetup_84" connect "$resource" "ipv4:$local_address" "ipv4:$peer_address" \
        "${kernel_net_options[@]}" "$@"
}

# kernel_up RESOURCE MINOR DISK LOCAL PEER [NET_OPTION...]: attach and connect.
kernel_up() {
    local resource=$1 minor=$2 disk=$3 local_address=$4 peer_address=$5
    shift 5
    kernel_attach "$resource" "$minor" "$disk"
    kernel_connect "$resource" "$local_address" "$peer_address" "$@"
}

# kernel_disconnect LOCAL PEER
kernel_disconnect() { "$drbdsetup_84" disconnect "ipv4:$1" "ipv4:$2"; }

# kernel_primary MINOR [--force]; kernel_secondary MINOR
kernel_primary() { "$drbdsetup_84" primary "$@"; }
kernel_secondary() { "$drbdsetup_84" secondary "$1"; }

# kernel_down RESOURCE...: as if it had never been configured.
kernel_down() {
    local resource
    for resource in "$@"; do "$drbdsetup_84" down "$resource"; done
}

# kernel_status MINOR: its two lines of /proc/drbd (state and counters), nothing if unknown.
kernel_status() {
    awk -v minor="$1:" '$1 ~ /^[0-9]+:$/ { mine = $1 == minor }
        mine && ($1 == minor || $1 ~ /^ns:/)' /proc/drbd
}

# kernel_value MINOR NAME: of /proc/drbd, states (cs ro ds) and counters (ns nr dw oos ...).
kernel_value() {
    [[ ! " $(kernel_status "$1") " =~ [[:space:]]$2:([^[:space:]]*) ]] || echo "${BASH_REMATCH[1]}"
}

kernel_has_state() { [[ $(kernel_status "$1") =~ $2 ]]; }

# kernel_wait_state MINOR REGULAR_EXPRESSION [SECONDS]: of the state line of /proc/drbd.
kernel_wait_state() {
    wait_until "${3:-30}" kernel_has_state "$1" "$2" && return 0
    echo "minor $1 did not become '$2' in ${3:-30} s; it is:"
    cat /proc/drbd
    return 1
}

# kernel_log [REGULAR_EXPRESSION]: the kernel's log since the last kernel_log_mark.
kernel_log() {
    dmesg --color=never | awk '/repd-log-mark/ { text = ""; next } { text = text $0 "\n" }
        END { printf "%s", text }' | { grep -E "${1:-}" || true; }
}

kernel_log_mark() { echo "repd-log-mark" >/dev/kmsg; }

# kernel_began_resync MINOR: how many blocks the last resync of this minor set out to copy.
kernel_began_resync() {
    kernel_log "block drbd$1: Began resync" | sed -n 's/.*\[\([0-9]*\) bits set\].*/\1/p' | tail -n 1
}

# Both ends look for each other at once: an attempt that is given up because the other one stands is
# closed before its first packet. Two kernels do that to each other, too.
harmless='Error receiving initial packet'

# kernel_log_complaints [IGNORE]: prints what DRBD or the kernel complained about since the mark,
# but for lines that match the regular expression IGNORE; status 1 if there was anything.
kernel_log_complaints() {
    local complaints
    # BAD as a word: UUIDs are printed in hexadecimal digits.
    local drbd='drbd.*(BUG|WARN|ASSERT|[^0-9A-F]BAD[^0-9A-F]|FIXME|LOGIC|[Ee]rror|ERR|[Uu]nexpected|Unrelated'
    drbd+='|bits in bitmap|corrupt|mismatch|invalid|failed|Split-Brain|Sending state .* failed)'
    local kernel='BUG:|WARNING:|Oops|Call Trace|blocked for more than|I/O error|general protection'
    complaints=$(kernel_log "$drbd|$kernel" | { grep -Ev "$harmless${1:+|$1}" || true; })
    [[ -n $complaints ]] || return 0
    printf '%s\n' "$complaints"
    return 1
}
