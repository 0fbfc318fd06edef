#!/usr/bin/env bash
# on-io-error pass_on beside the kernel's DRBD: blocks that fail, in both roles and on both sides.
# needs: vm
# timeout: 400
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib/scenario.sh"

need_binary repd repctl
vm run --timeout 340 "$REPD_ROOT/Tests/scenarios/guest/passed-on-errors.sh"
