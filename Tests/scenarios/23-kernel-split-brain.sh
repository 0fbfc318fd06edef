#!/usr/bin/env bash
# repd and the kernel's DRBD were Primary while apart: both refuse, and either can be discarded.
# needs: vm
# timeout: 480
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib/scenario.sh"

need_binary repd repctl
vm run --timeout 420 "$REPD_ROOT/Tests/scenarios/guest/kernel-split-brain.sh"
