# repd and the kernel's DRBD, each in both roles, under each protocol; counted on both sides.
set -euo pipefail
. "$REPD_ROOT/scripts/lib/repd-and-kernel.sh"

# first_sync FROM: both disks fresh, FROM promoted by force.
first_sync() {
    pair_create_md
    dd if=/dev/urandom of="${node_disks[$1]}" bs=1M count=20 conv=notrunc status=none
    pair_up C
    kernel_wait_state 1 'cs:Connected ro:Secondary/Secondary ds:Inconsistent/Inconsistent' 20 ||
        fail "no connection: $(node_log a)"
    kernel_is_content 'No resync, but'
    pair_log_mark
    count_from
    promote "$1" --force
    pair_in_sync "after the first sync"
    began_resync 8182 "first sync"
    counted "$1" 32728 "first sync"
    demote "$1"
    pair_same "after the first sync from $1"
    kernel_is_content
}

# cut_and_return PRIMARY: cut while idle, write, reconnect.
cut_and_return() {
    local blocks=$((150 + RANDOM % 100))
    pair_log_mark
    pair_cut
    wait_lost
    mapfile -t target < <(on "$1")
    fio_blocks "$blocks" "${target[@]}"
    [[ $(out_of_sync "$1") == $((blocks * 4)) ]] ||
        fail "$blocks blocks written alone, out of sync: $(out_of_sync "$1") KiB"
    count_from
    pair_heal
    pair_in_sync "after a cut"
    began_resync "$blocks" "after a cut, $1 Primary"
    counted "$1" $((blocks * 4)) "after a cut, $1 Primary"
    pair_same "after a cut"
    kernel_is_content
}

# cut_under_load PRIMARY: writes go on through cut, time-out and resync.
cut_under_load() {
    pair_log_mark
    mapfile -t target < <(on "$1")
    count_from
    fio_rate 6 "${target[@]}" &
    local load=$!
    wait_until 30 has_sent "$1" || fail "the load does not begin"
    pair_cut
    node_wait a "$lost" 20 || fail "the cut is not noticed"
    pair_heal
    wait "$load" || fail "the load failed"
    pair_in_sync "after a cut under load"
    demote "$1"
    pair_same "after a cut under load"
    promote "$1"
    kernel_is_content
}

load() {
    mapfile -t target < <(on "$2")
    count_from
    fio_verify --size=8M "${target[@]}"
    # Under A and B what is written may be on its way; this waits for it.
    demote "$2"
    counted "$2" 8192 "load under $1, $2 Primary"
    pair_same "after load under $1, $2 Primary"
    kernel_is_content
}

kernel_load
pair_disks 32
echo "first sync from repd to the kernel"
first_sync a
pair_down
pair_same_at_rest
echo "first sync from the kernel to repd"
first_sync b
for protocol in C B A; do
    echo "protocol $protocol, each as Primary: load with verify, cut"
    pair_down
    pair_same_at_rest
    kernel_log_mark
    pair_up "$protocol"
    pair_in_sync "under $protocol"
    for node in a b; do
        promote "$node"
        load "$protocol" "$node"
        promote "$node"
        case $protocol in
            C)
                cut_and_return "$node"
                cut_under_load "$node"
                ;;
            A) cut_under_load "$node" ;;
        esac
        demote "$node"
    done
done
pair_down
pair_same_at_rest
