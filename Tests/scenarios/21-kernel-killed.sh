#!/usr/bin/env bash
# The kernel's machine loses power as Primary under load, repd is promoted; later repd is killed as
# Primary, the kernel is promoted: every acknowledged record is there each time.
# needs: vm
# timeout: 600
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib/scenario.sh"
. "$REPD_ROOT/scripts/lib/metadata.sh"

need_binary repd repctl
jobs=$REPD_ROOT/Tests/scenarios/guest
mkdir "$scratch/shared"
truncate --size 32M "$scratch/a.img" "$scratch/b.img"
beta() {
    vm run --timeout 340 --hostname beta --address 10.77.0.2/24 --connect "$scratch/cable" \
        --shared "$scratch/shared" --disk "$scratch/b.img" "$jobs/killed-kernel.sh" "$1"
}

background vm run --timeout 540 --hostname alpha --address 10.77.0.1/24 --listen "$scratch/cable" \
    --shared "$scratch/shared" --disk "$scratch/a.img" "$jobs/killed-repd.sh"
alpha=$background_pid
echo "the kernel is Primary under load when its machine loses power"
status=0
beta first 2>"$scratch/beta.error" || status=$?
[[ $status == 125 ]] || fail "exit status $status of a machine without power: $(cat "$scratch/beta.error")"
echo "its machine comes back; repd is Primary under load when it is killed"
beta again
wait "$alpha" || fail "exit status $? of repd's machine"
nodes=$scratch
same_data "$scratch/a.img" "$scratch/b.img" || fail "the disks differ"
drbdmeta_of "$scratch/b.img" apply-al >/dev/null 2>&1
same_metadata "$scratch/a.img" "$scratch/b.img"
