#!/usr/bin/env bash
# The kernel device that repd attaches itself: it follows the role, and outlives the engine.
# needs: vm
# timeout: 400
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib/scenario.sh"

need_binary repd repctl
vm run --timeout 340 "$REPD_ROOT/Tests/scenarios/guest/kernel-device.sh"
