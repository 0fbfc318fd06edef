#!/usr/bin/env bash
# The kernel's /dev/nbd0 on an export: a file system that moves with the role.
# needs: vm
# timeout: 120
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib/scenario.sh"

need_binary repd repctl
vm run --timeout 110 "$REPD_ROOT/Tests/scenarios/guest/nbd-kernel-device.sh"
