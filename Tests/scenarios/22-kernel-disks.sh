#!/usr/bin/env bash
# Disks change hands between repd and the kernel's DRBD, in order and after a crash.
# needs: vm
# timeout: 480
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib/scenario.sh"

need_binary repd repctl
vm run --timeout 420 "$REPD_ROOT/Tests/scenarios/guest/foreign-disks.sh"
