#!/usr/bin/env bash
# The kernel's /dev/nbd0 on an export: a file system that moves with the role.
# needs: vm
# timeout: 400
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib/scenario.sh"

need_binary repd repctl
vm run --timeout 340 "$REPD_ROOT/Tests/scenarios/guest/nbd-kernel-device.sh"
