#!/usr/bin/env bash
# Disks that fail and come back, under repd and under the kernel's DRBD, in both roles.
# needs: vm
# timeout: 480
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib/scenario.sh"

need_binary repd repctl
vm run --timeout 420 "$REPD_ROOT/Tests/scenarios/guest/disk-failures.sh"
