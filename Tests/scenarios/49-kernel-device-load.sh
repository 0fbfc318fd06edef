#!/usr/bin/env bash
# File systems on the kernel device: made with discard, and written to with less memory than data while
# the engine is killed; killed, too, while a demotion flushes the device.
# needs: vm
# timeout: 1500
set -euo pipefail
. "$(dirname "$0")/../../scripts/lib/scenario.sh"

need_binary repd repctl
# MiB in one file; for more: REPD_LOAD=4096.
load=${REPD_LOAD:-512}
truncate --size "$((load + 384))M" "$scratch/disk.img"
vm run --timeout "$((300 + load / 4))" --memory 512 --disk "$scratch/disk.img" \
    "$REPD_ROOT/Tests/scenarios/guest/kernel-device-load.sh" "$load"
