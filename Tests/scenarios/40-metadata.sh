#!/usr/bin/env bash
# Meta data of disks that nobody uses, against drbdmeta: made and printed alike over sizes, places and
# logs; restored from each other's dumps; moved when a disk has grown, where drbdmeta loses the bits (T1);
# other formats named. And a clean volume of 16 TiB is attached in less than a second.
# timeout: 400
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib/scenario.sh"
. "$REPD_ROOT/scripts/lib/nodes.sh"

need_binary repd repctl
# Files of 16 TiB: ext4 has none.
nodes=$(mktemp -d /dev/shm/repd-metadata.XXXXXX)
clean_up() {
    rm -rf "$nodes"
    scenario_clean_up
}
trap clean_up EXIT

echo "repctl and drbdmeta make and print the same"
mkdir "$nodes/matrix"
matrix=$(/usr/bin/python3 "$REPD_ROOT/scripts/lib/metadata_matrix.py" "$REPD_BIN/repctl" "$nodes/matrix" \
    "$REPD_ROOT/Tests/MetaDiskTests/Fixtures" 2>&1) || fail "the matrix: $matrix"
echo "$matrix"
[[ $matrix =~ ^([0-9]+)\ the\ same ]] || fail "the matrix says $matrix"
[[ ${BASH_REMATCH[1]} -ge 240 ]] || fail "too few: $matrix"
rm -r "$nodes/matrix"

# dump_body DUMP: without header and flags, which drbdmeta does not tell.
dump_body() { sed -e '1,/^#$/d' -e '/^    flags /d' "$1"; }

echo "each restores what the other one dumped"
nodes_configure C 64
node_create_md a
make_equal_metadata "${node_disks[a]}" 0x1 0xFF00 0x8000000000000000
drbdmeta_of "${node_disks[a]}" dump-md >"$nodes/theirs" 2>/dev/null
node_ctl a dump-md >"$nodes/ours"
[[ $(dump_body "$nodes/theirs") == "$(dump_body "$nodes/ours")" ]] || fail "the dumps differ"
grep -q 'flags 0x00000091;' "$nodes/ours" || fail "our dump does not have the flags"
drbdmeta_of "${node_disks[b]}" restore-md "$nodes/ours" >/dev/null 2>&1 || fail "drbdmeta refuses our dump"
[[ $(metadata "${node_disks[b]}") == "$(metadata "${node_disks[a]}")" ]] || fail "drbdmeta restored something else"
node_ctl b wipe-md --force 2>/dev/null >&2
node_ctl b verify-dump "$nodes/theirs" >/dev/null 2>&1 || fail "repctl refuses a dump of drbdmeta"
node_ctl b restore-md "$nodes/ours" >/dev/null || fail "repctl refuses its own dump"
cmp "${node_disks[a]}" "${node_disks[b]}" || fail "what repctl restored is not what it dumped"
node_refuses b 1 'Valid meta-data in place, overwrite?' restore-md "$nodes/ours"
node_refuses b 1 'Write new GI to disk?' set-gi 7
sed -i '$d' "$nodes/ours"
sed -i 's/^}$//' "$nodes/ours"
node_refuses b 10 'Parse error in line' restore-md --force "$nodes/ours"
[[ $(metadata "${node_disks[b]}") == "$(metadata "${node_disks[a]}")" ]] || fail "a refused text was written"

echo "set-gi, outdate, invalidate and apply-al do what drbdmeta does"
for arguments in 'set-gi 11:22:33:44:1:1:1:0:0:1:0 --force' outdate apply-al invalidate apply-al; do
    read -r -a words <<<"$arguments"
    node_ctl b "${words[@]}" >/dev/null 2>&1 || fail "repctl $arguments"
    [[ ${words[-1]} != --force ]] || unset 'words[-1]'
    drbdmeta_of "${node_disks[a]}" "${words[@]}" >/dev/null 2>&1 || fail "drbdmeta $arguments"
    cmp "${node_disks[a]}" "${node_disks[b]}" || fail "after $arguments the disks differ"
done

echo "a disk that has grown: all bits keep their places (T1)"
rm "${node_disks[a]}" "${node_disks[b]}"
for node in a b; do truncate --size 64M "${node_disks[$node]}"; done
make_equal_metadata "${node_disks[a]}" 0x1 0xFF00 0x8000000000000000
cp --sparse=always "${node_disks[a]}" "${node_disks[b]}"
for node in a b; do truncate --size 320M "${node_disks[$node]}"; done
node_refuses a 1 'no suitable meta data found :(' check-resize
[[ $(node_ctl a check-resize --old-size $((64 << 20))) == *'at the end of'* ]] || fail "nothing was moved"
[[ $(metadata "${node_disks[a]}") == *' 10' ]] ||
    fail "bits were lost: $(metadata "${node_disks[a]}")"
dump=$(node_ctl a dump-md)
[[ $dump == *'0x0000000000000001; 0x000000000000FF00; 0x8000000000000000;'* ]] || fail "bits have moved: $dump"
[[ -z $(node_ctl a check-resize) ]] || fail "check-resize of what is in its place is not silent"

echo "other formats are named, and how to convert them"
# Of v07 both kinds: one ends the disk, the other one takes its last 128 MiB.
for kind in 'v07 flex-internal' 'v07 internal' 'v09 internal 1'; do
    read -r format place peers <<<"$kind"
    rm "${node_disks[b]}"
    truncate --size 160M "${node_disks[b]}"
    drbdmeta --force - "$format" "${node_disks[b]}" "$place" create-md ${peers:+"$peers"} \
        </dev/null >"$nodes/output" 2>&1 || fail "drbdmeta makes no $kind: $(cat "$nodes/output")"
    for command in dump-md apply-al dstate 'set-gi 1' check-resize; do
        read -r -a words <<<"$command"
        node_refuses b 1 "meta data of format $format found; convert it with drbdmeta" "${words[@]}"
    done
    node_refuses b 30 "will not replace $format meta-data by force" create-md --force
    node_start b
    node_refuses b 10 "(119) meta data of format $format found" attach
    node_down b
done

echo "a clean volume of 16 TiB is attached in less than a second"
rm "${node_disks[a]}" "${node_disks[b]}"
truncate --size 16T "${node_disks[a]}"
make_equal_metadata "${node_disks[a]}"
node_start a
start=$(date +%s%N)
node_ctl a attach
elapsed=$((($(date +%s%N) - start) / 1000000))
resident=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' "/proc/${node_pids[a]}/status")
echo "  $elapsed ms, $((resident / 1024)) MiB"
[[ $elapsed -lt 1000 ]] || fail "attached in $elapsed ms"
[[ $resident -lt $((1024 * 1024)) ]] || fail "$resident KiB of memory"
[[ $(node_ctl a dstate) == UpToDate/* ]] || fail "attached as $(node_ctl a dstate)"
node_down a
