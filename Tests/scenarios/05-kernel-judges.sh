#!/usr/bin/env bash
# The judges work: the kernel's DRBD, its nbd and a cable between two machines, without repd.
# needs: vm
# timeout: 480
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib/scenario.sh"

jobs=$REPD_ROOT/Tests/scenarios/guest
echo "two minors of the kernel replicate, lose each other, and copy what was written meanwhile,"
echo "the kernel's nbd works against stock servers, and the harness brings the exit status back"
status=0
vm run --timeout 300 - "$jobs/kernel-pair.sh" "$jobs/nbd.sh" <<'JOB' || status=$?
for job in "$@"; do bash "$job" || exit 1; done
exit 7
JOB
[[ $status == 7 ]] || fail "exit status $status, not that of the job"
echo "two machines reach each other"
vm pair "$jobs/cable.sh" "$jobs/cable.sh"

echo "the harness tells a machine that hangs from one that crashes"
status=0
vm run --timeout 3 - <<<'sleep 10' 2>"$scratch/error" || status=$?
[[ $status == 124 ]] || fail "exit status $status after the time ran out"
grep -q 'time ran out' "$scratch/error"
status=0
vm run --timeout 300 - <<<'echo c >/proc/sysrq-trigger; sleep 10' 2>"$scratch/error" || status=$?
[[ $status == 125 ]] || fail "exit status $status after a crash of the kernel"
grep -q 'Kernel panic' "$scratch/error"
