# Both repd and the kernel were Primary while apart: both refuse, an operator decides, either way.
set -euo pipefail
. "$REPD_ROOT/scripts/lib/repd-and-kernel.sh"

device=/dev/drbd1

# split: repd writes blocks 0-99, the kernel 50-149, each alone.
split() {
    pair_cut
    wait_lost
    node_primary a
    kernel_primary 1
    records fill "$(node_uri a)" "$nodes/records.a" --first 0 --blocks 100 >/dev/null
    records fill "$device" "$nodes/records.b" --first 50 --blocks 100 >/dev/null
    [[ $(out_of_sync a) == 400 && $(out_of_sync b) == 400 ]] ||
        fail "out of sync: $(out_of_sync a) and $(out_of_sync b) KiB"
    pair_log_mark
    pair_heal
}

# both_refuse: without being asked, at the next contact.
both_refuse() {
    node_wait a 'cs:StandAlone .*ds:UpToDate/DUnknown' 30 || fail "repd goes on"
    kernel_wait_state 1 'cs:StandAlone .*ds:UpToDate/DUnknown' 30 || fail "the kernel goes on"
    [[ -n $(node_log_since a 'split brain detected.*rule 90.*100 blocks .* here, 100 at the peer') ]] ||
        fail "repd does not say rule and blocks: $(node_log a)"
    [[ -n $(kernel_log 'Split-Brain detected but unresolved') ]] || fail "the kernel did not notice"
}

# end_split LOSER: what the winner had is everywhere, and only what the loser wrote has gone.
end_split() {
    pair_in_sync "after a decided split brain"
    began_resync 150 "after a decided split brain"
    if [[ $1 == a ]]; then
        records verify "$device" "$nodes/records.b" || fail "the kernel lost its records"
        kernel_secondary 1
    else
        records verify "$(node_uri a)" "$nodes/records.a" || fail "repd lost its records"
        node_ctl a secondary
    fi
    same_bytes "$(data_size "$nodes/winner")" "$nodes/winner" "$(winner_disk "$1")" ||
        fail "the winner's disk was changed"
    pair_same "after a decided split brain"
    kernel_is_content 'Split-Brain detected, |helper command'
}

winner_disk() { if [[ $1 == a ]]; then echo "${node_disks[b]}"; else echo "${node_disks[a]}"; fi; }

keep_winner() {
    blockdev --flushbufs "$(winner_disk "$1")"
    cp "$(winner_disk "$1")" "$nodes/winner"
}

same_bytes() { cmp --bytes="$1" "$2" "$3"; }

kernel_load
pair_disks 32
make_equal_metadata "${node_disks[a]}"
make_equal_metadata "${node_disks[b]}"
pair_up C
pair_in_sync "of equal meta data"

echo "both written while apart: StandAlone on both, with rule and blocks at stake"
split
both_refuse
echo "repd discards: only its changes are lost"
kernel_log_mark
node_log_mark a
keep_winner a
node_ctl a secondary
b_connect
node_ctl a connect --discard-my-data
end_split a

split
both_refuse
echo "the kernel discards: only its changes are lost"
kernel_log_mark
node_log_mark a
keep_winner b
kernel_secondary 1
node_ctl a connect
b_connect --discard-my-data
end_split b
pair_down
pair_same_at_rest
